"""Commands that make files of files: import, pick, extract, embed, convert."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomolab.commands.command import (
    Command,
    Result,
    UsageError,
    add_output,
    add_particles,
    add_tomograms,
    count,
    free_output,
    named,
    positive,
    show_progress,
)

if TYPE_CHECKING:
    import pandas as pd

    from tomolab.inspection.input_tomograms import InputTomogram


def _import_arguments(parser: ArgumentParser) -> None:
    add_tomograms(parser)
    add_particles(parser, required=False)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="the run folder; the same command continues it")
    parser.add_argument("--template", type=Path, metavar="CSV", help="write a list of the tomograms to fill in, and stop")
    parser.add_argument("--diameter", type=positive, metavar="Å", help="of a particle")
    parser.add_argument("--features", type=Path, metavar="FILE", help="features of the particles by another program")
    parser.add_argument("--features-in-order", action="store_true", help="their rows are in the order of the particles")
    parser.add_argument("--threshold", type=float, default=3.0, help="of picks, 0 (all) to 20 (only the best); default: 3")
    parser.add_argument("--network", default="default", help="that makes the features; default: default")
    parser.add_argument("--box-voxel-size", type=positive, metavar="Å", help="of the boxes for averages, if finer than 20")
    parser.add_argument("--clusters", type=int, default=16, help="of the features; default: 16")
    parser.add_argument("--seed", type=int, default=0)


def _import(given: Namespace) -> Result:
    from tomolab import inspection, subtomograms

    tomograms = named(given.tomograms)
    if given.template is not None:
        listed = subtomograms.find_tomograms(tomograms)
        path = subtomograms.write_tomogram_list(listed, given.template)
        text = f"{path} lists {count(len(listed), 'tomogram')}. Fill in contrast and tilts, then: tomolab import {path} ..."
        return Result(text, {"template": path, "tomograms": len(listed)})
    if given.output is None or given.diameter is None:
        raise UsageError("give --output, the run folder, and --diameter, that of a particle in Å")
    options = {
        name: getattr(given, name)
        for name in (
            *("contrast", "voxel_size", "check_contrast", "particles_voxel_size", "unit", "tomogram_list", "skip_unknown"),
            *("features", "features_in_order", "threshold", "network", "box_voxel_size", "clusters", "seed", "diameter"),
        )
    }
    options |= {"tilts": _pair(given.tilts), "particles": None if given.particles is None else named(given.particles)}
    work = inspection.import_data(tomograms, given.output, progress=show_progress(given), **options)
    counts = {"particles": len(work.session.ids), "tomograms": len(work.named), "clusters": len(work.session.clusters)}
    text = (
        f"{given.output} has {count(counts['particles'], 'particle')} of {count(counts['tomograms'], 'tomogram')} in "
        f"{count(counts['clusters'], 'cluster')}. Next: tomolab inspect {given.output}, tomolab discover {given.output}, or "
        f"tomolab average {given.output} --all"
    )
    return Result(text, {"folder": given.output, **counts})


def _pick_arguments(parser: ArgumentParser) -> None:
    add_tomograms(parser)
    parser.add_argument("--diameter", type=positive, nargs="+", required=True, metavar="Å", help="one, or lowest and highest")
    parser.add_argument("--threshold", type=float, default=3.0, help="0 (all) to 20 (only the best); default: 3")
    parser.add_argument("--keep-gold", action="store_true", help="do not leave out gold beads")
    add_output(parser, "the list: .star, .tbl, .em, .ndjson or .csv")


def _pick(given: Namespace) -> Result:
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    from tomolab import io
    from tomolab.inspection import importing, input_tomograms

    if len(given.diameter) > 2:
        raise UsageError(f"--diameter is one number of Å or the lowest and the highest, got {len(given.diameter)}")
    path = free_output(given)
    diameter = given.diameter[0] if len(given.diameter) == 1 else tuple(given.diameter)
    inputs = _tomograms(given)
    input_tomograms.require_tilts(inputs)
    tables = []
    for one in tqdm(inputs, desc="tomograms", disable=not show_progress(given)):
        found = importing.pick(one.bright(), one, diameter=diameter, threshold=given.threshold, keep_gold=given.keep_gold)
        tables.append(found)
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(particle_id=np.arange(len(table)))
    io.write_particles(table, path, voxel_size=None if path.suffix == ".csv" else inputs[0].voxels.voxel_size)
    counts = table["tomogram"].value_counts(sort=False).to_dict()
    return Result(f"{path} has {count(len(table), 'pick')}", {"list": path, "picks": len(table), "by_tomogram": counts})


def _extract_arguments(parser: ArgumentParser) -> None:
    add_tomograms(parser)
    add_particles(parser, required=True)
    parser.add_argument("--box", type=int, required=True, metavar="VOXELS", help="edge")
    parser.add_argument("--box-voxel-size", type=positive, metavar="Å", help="of the boxes; by default of the tomograms")
    parser.add_argument("--keep-edges", action="store_true", help="keep particles whose box leaves the tomogram")
    add_output(parser, "the store of subtomograms, a folder .zarr; the same command continues it")


def _extract(given: Namespace) -> Result:
    import pandas as pd

    from tomolab import subtomograms

    path = free_output(given)
    inputs = _tomograms(given)
    table = _particles(given, inputs)
    rows = pd.DataFrame([one.row for one in inputs])
    size, edges = given.box_voxel_size, "flag" if given.keep_edges else "skip"
    options: dict[str, Any] = {"box": given.box, "voxel_size": size, "edges": edges, "check_contrast": False}
    boxes = subtomograms.extract_many(rows, table, path=path, progress=show_progress(given), **options)
    values = {"store": path, "boxes": len(boxes), "skipped": len(boxes.skipped), "box": boxes.box}
    text = (
        f"{path} has {len(boxes):,} boxes of {boxes.box} voxels of {boxes.voxel_size:g} Å; {len(boxes.skipped):,} were skipped"
    )
    return Result(text, values | {"voxel_size": boxes.voxel_size})


def _embed_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("store", type=Path, metavar="STORE", help="subtomograms, made by tomolab extract")
    parser.add_argument("--network", default="default", help="shipped network, or a .safetensors file; default: default")
    parser.add_argument("--device", help="such as cpu or cuda; by default a GPU if there is one")
    parser.add_argument("--csv", type=Path, metavar="CSV", help="also write a table with a row for each particle")
    add_output(parser, "the embedding, a folder; the same command continues it")


def _embed(given: Namespace) -> Result:
    import pandas as pd

    from tomolab import io, learning, parallel, subtomograms

    path = free_output(given)
    network, boxes = learning.load_network(given.network), subtomograms.open(given.store)
    device = parallel.pick_device(given.device)
    found = learning.embed(network, boxes, path=path, device=device, progress=show_progress(given))
    if given.csv is not None:
        table = pd.DataFrame(found.vectors, columns=[f"z{n}" for n in range(found.vectors.shape[1])])
        table.insert(0, "particle_id", found.ids)
        with io.atomic(given.csv) as temporary:
            table.to_csv(temporary, index=False)
    values = {"embedding": path, "particles": len(found), "features": found.vectors.shape[1], "network": found.network}
    return Result(f"{path} has {found.vectors.shape[1]} features of {count(len(found), 'particle')}", values)


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="LIST", help="a particle list of any known format")
    parser.add_argument(
        "output", type=Path, metavar="OUTPUT", help="its suffix is the format: .star, .tbl, .em, .mod, .ndjson, .csv"
    )
    parser.add_argument(
        "--format", help="of .star: relion31 (default), relion30, relion4, relion5, warp, stopgap; of .em: artiatomi"
    )
    parser.add_argument("--voxel-size", type=positive, metavar="Å", help="per pixel of the coordinates that are read")
    parser.add_argument("--output-voxel-size", type=positive, metavar="Å", help="per pixel that is written; default: as read")
    parser.add_argument("--tilts", nargs=2, type=float, metavar=("LOWEST", "HIGHEST"), help="degrees, if the list lacks them")
    parser.add_argument("--tomogram", help="name of the tomogram, if the list names none")
    parser.add_argument("--tomogram-shape", nargs=3, type=int, metavar=("Z", "Y", "X"), help="voxels of the tomogram")
    parser.add_argument("--tomogram-list", type=Path, metavar="STAR", help="tomograms.star of RELION")
    parser.add_argument("--unit", choices=("angstrom", "voxel", "fraction"), help="of coordinates that do not say it")
    parser.add_argument("--renumber", action="store_true", help="number the particles from 1; their ids go to original_id")
    parser.add_argument("--force", action="store_true", help="replace what is there")


def _convert(given: Namespace) -> Result:
    from tomolab import io
    from tomolab.io.lists import formats

    path = free_output(given)
    shape = None if given.tomogram_shape is None else tuple(given.tomogram_shape)
    table = io.read_particles(
        given.list,
        voxel_size=given.voxel_size,
        tilts=_pair(given.tilts),
        tomogram_shape=shape,
        tomogram=given.tomogram,
        tomogram_list=given.tomogram_list,
        unit=given.unit,
        renumber=given.renumber,
    )
    if given.renumber:
        table["particle_id"] += 1  # Dynamo and others have no particle 0
    elif path.suffix.lower() == ".tbl" and (table["particle_id"] < 1).any():
        raise ValueError("Dynamo counts particles from 1, and ids of this list are lower: number them anew, with --renumber")
    known: dict[str, Any] = {"voxel_size": given.output_voxel_size or given.voxel_size}
    known |= {"tomogram_shape": shape, "tomogram_list": given.tomogram_list}
    uses = formats.options(path, given.format)
    io.write_particles(table, path, format=given.format, **{name: value for name, value in known.items() if name in uses})
    text = f"{path} has {count(len(table), 'particle')} of {count(table['tomogram'].nunique(), 'tomogram')}"
    return Result(text, {"list": path, "particles": len(table), "tomograms": table["tomogram"].nunique()})


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _tomograms(given: Namespace) -> list["InputTomogram"]:
    from tomolab.inspection import input_tomograms

    stated: dict[str, Any] = {name: getattr(given, name) for name in ("contrast", "voxel_size", "check_contrast")}
    return input_tomograms.read_inputs(named(given.tomograms), tilts=_pair(given.tilts), **stated)


def _particles(given: Namespace, tomograms: list["InputTomogram"]) -> "pd.DataFrame":
    from tomolab.inspection import input_particles

    stated = {name: getattr(given, name) for name in ("particles_voxel_size", "unit", "tomogram_list", "skip_unknown")}
    return input_particles.read_inputs(named(given.particles), tomograms, input_particles.ListOptions(**stated))


COMMANDS = (
    Command(
        "import",
        "Make a run folder of tomograms, with particle lists or without: boxes, features, clusters.",
        "tomolab import TS_01.mrc --particles TS_01.star --contrast dark --tilts -60 60 --diameter 250 -o runs/mine\n"
        "tomolab import tomograms/ --template tomograms.csv",
        _import_arguments,
        _import,
    ),
    Command(
        "pick",
        "Pick particles without a template.",
        "tomolab pick TS_01.mrc --contrast dark --tilts -60 60 --diameter 250 -o picks.star",
        _pick_arguments,
        _pick,
    ),
    Command(
        "extract",
        "Cut boxes around particles into one store.",
        "tomolab extract TS_01.mrc --particles picks.star --contrast dark --box 20 --box-voxel-size 20 -o boxes.zarr",
        _extract_arguments,
        _extract,
    ),
    Command(
        "embed",
        "Compute the features of boxes with a network.",
        "tomolab embed boxes.zarr -o embedding",
        _embed_arguments,
        _embed,
    ),
    Command(
        "convert",
        "Convert a particle list into another format.",
        "tomolab convert particles.tbl particles.star --voxel-size 10 --format relion5 --tomogram-shape 200 464 464",
        _convert_arguments,
        _convert,
    ),
)
