"""Takes the folder of a refinement by RELION, gives an average.

>>> theirs = read("runs/tour/relion")
>>> theirs.record["converged"], theirs.resolution
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tomolab import io
from tomolab.averaging.fsc import correlate
from tomolab.averaging.half_maps import Average
from tomolab.io import safe_load
from tomolab.io.lists.star import parsing
from tomolab.subtomograms.to_relion import particles
from tomolab.volumes import Volume

OPTIONS = "options.json"
"""File in which `relion.refine` records its options."""


def read(folder: str | Path, name: str = "run") -> Average:
    """Read a refinement in two halves, also one started by hand, in a folder that `relion.write` made.

    Parameters
    ----------
    folder
        Of `relion.write`.
    name
        Folder in it where the files ``run_*`` are, such as ``"Refine3D/job001"``.

    Returns
    -------
    Average
        RELION's final map, its two unfiltered half maps, and their Fourier shell correlation inside the mask of the
        refinement (`averaging.correlate`), with RELION's own, without a mask, in the column ``relion``. The particles have
        the ids and columns that were written, refined poses, ``half``, ``score`` (RELION's contribution to the
        log-likelihood), and RELION's other columns. If ``record["converged"]`` is False, the maps are those of the last
        iteration, which are filtered, and the correlation is RELION's own. The frame is RELION's: align the map before
        comparing it. RELION joins the halves up to ``record["together"]`` Å.

    Raises
    ------
    FileNotFoundError
        If no iteration has finished, or there are no half maps.
    """
    folder = Path(folder)
    base, done = folder / name / "run", iterations(folder, name)
    if not done or done[-1] == 0:
        raise FileNotFoundError(f"{folder / name} holds no finished iteration of RELION")
    last = f"{base}_it{done[-1]:03d}"
    final = Path(f"{base}_data.star").is_file() and Path(f"{base}_class001.mrc").is_file()
    state, suffix, model = (base, "_unfil", f"{base}_model.star") if final else (last, "", f"{last}_half1_model.star")
    halves = [Path(f"{state}_half{half}_class001{suffix}.mrc") for half in (1, 2)]
    if not all(half.is_file() for half in halves):
        raise FileNotFoundError(f"{folder / name} holds no half maps: it is no refinement in two halves")
    half1, half2 = (io.read_volume(half) for half in halves)
    settings = parsing.blocks(Path(f"{last}_optimiser.star"))["optimiser_general"].iloc[0]
    fsc = _fsc(Path(model))
    if final:
        volume = io.read_volume(f"{base}_class001.mrc")
        diameter = float(settings["rlnParticleDiameter"]) / volume.voxel_size
        fsc = correlate(half1, half2, diameter_voxels=diameter).assign(relion=fsc["fsc"])
    else:
        volume = Volume((half1.data + half2.data) / 2, half1.voxel_size)
    options = folder / name / OPTIONS
    recorded = safe_load.read_json(options, "the options of a refinement") if options.is_file() else {}
    record: dict[str, Any] = {"program": "RELION", "iterations": done[-1], "converged": final}
    record["together"] = float(settings["rlnJoinHalvesUntilThisResolution"])
    return Average(volume, half1, half2, fsc, particles(f"{state}_data.star"), record | recorded)


def iterations(folder: str | Path, name: str = "run") -> list[int]:
    """Numbers of the iterations of which all files are there and none is empty, as RELION leaves it until it has written it."""
    there = []
    for path in sorted(Path(folder, name).glob("run_it*_optimiser.star")):
        start = str(path).removesuffix("_optimiser.star")
        files = [Path(f"{start}_{part}.star") for part in ("optimiser", "data", "sampling", "half1_model", "half2_model")]
        if all(file.is_file() and file.stat().st_size for file in files):
            there.append(int(start.rpartition("_it")[2]))
    return there


def _fsc(model: Path) -> pd.DataFrame:
    """Fourier shell correlation of the half maps from a model that RELION wrote."""
    shells = parsing.blocks(model)["model_class_1"]
    values = parsing.numbers(shells, ["rlnSpectralIndex", "rlnAngstromResolution", "rlnGoldStandardFsc"])
    return pd.DataFrame(values[values[:, 0] > 0, 1:], columns=["resolution", "fsc"])
