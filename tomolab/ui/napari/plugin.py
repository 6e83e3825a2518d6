"""Takes a tomogram, a run folder, a particle list or subtomograms, gives napari layers; also gives two sample data sets.

All layers are in Å. The metadata of layers of a run folder has its path, so that the inspector finds it.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba_array

from tomolab import io
from tomolab.conventions import WEDGE, centre
from tomolab.inspection import run_contents
from tomolab.inspection import session as sessions
from tomolab.inspection.run_contents import SESSION
from tomolab.inspection.session import Session
from tomolab.io.volumes.tomogram import of
from tomolab.simulation import densities, generator
from tomolab.simulation.imaging import Imaging
from tomolab.subtomograms import store, tomogram_list
from tomolab.ui import style
from tomolab.ui.napari import link, picks, viewer
from tomolab.volumes import Volume

Layer = tuple[Any, dict[str, Any], str]
"""Data, keyword arguments and layer type, as in napari's plugins."""
VOLUMES = tuple(f"{end}{packed}" for end in (".mrc", ".rec", ".map") for packed in ("", ".gz", ".bz2"))
"""What the names of tomograms end with."""
MARKS = dict.fromkeys((".star", ".tbl", ".em", ".mod", ".ndjson", ".cbox", ".coords", ".tloc"), b"")
MARKS |= {".csv": b"particle_id", ".json": b'"points"', ".xml": b"ParticleList"}
"""What the beginning of a particle list holds, by suffix; anything where that is empty."""
LISTS = ("clusters.csv", "picks.star", "truth.csv")
"""Particle lists of a run folder; the first that exists is shown."""
SAMPLE = {"ribosome_70s": 14, "tric": 14, "apoferritin": 14}
"""Particles of each complex in the simulated tomogram."""
DIAMETER = 200.0
"""Diameter in Å of particles whose list has none."""


def reader(path: str | Sequence[str]) -> Callable[[Any], list[Layer]] | None:
    """Give the function that reads a path, or None if tomolab cannot.

    Parameters
    ----------
    path
        A run folder, a store of subtomograms (.zarr), a tomogram (.mrc and its like) or a particle list.
    """
    if not isinstance(path, str | Path):
        return None
    place = Path(path)
    if place.name.lower().endswith(VOLUMES):
        return read_tomogram
    if _is_list(place):
        return read_list
    if (place / "zarr.json").is_file() and (place / "particles.parquet").is_file():
        return read_boxes
    if place.is_dir() and (run_contents.tomogram_files(place) or any((place / name).is_file() for name in LISTS)):
        return read_run
    return None


def _is_list(place: Path) -> bool:
    """Whether a file is a particle list; many programs use some of the suffixes, so what is in the file decides there."""
    mark = MARKS.get(place.suffix.lower())
    if mark is None or not mark:
        return mark is not None
    with place.open("rb") as file:
        return mark in file.read(4096)


def read_tomogram(path: str | Path) -> list[Layer]:
    """Layer of a tomogram or another map, in Å; without a voxel size it is shown with voxels of 1 Å, and a warning.

    Parameters
    ----------
    path
        As in `io.read_volume`.

    Raises
    ------
    ValueError
        If it is none.
    """
    place, sized = Path(path), True
    try:
        volume = io.read_volume(place)
    except ValueError as error:
        if "voxel_size=" not in str(error):
            raise
        volume, sized = io.read_volume(place, voxel_size=1.0), False
        warnings.warn(f"{place.name} does not say its voxel size, and is shown with voxels of 1 Å: {error}", stacklevel=2)
    known = tomogram_list.check(tomogram_list.find(place).drop(columns="voxel_size"))
    name = str(known["tomogram"][0])
    table = known.dropna(subset=WEDGE)
    where = picks.place(name, place.parent, {name: of(volume, name=str(place))}, table=table, sized=sized)
    return [density(volume, name=place.name, metadata={picks.PLACE: where})]


def read_run(path: str | Path) -> list[Layer]:
    """Layers of a run folder: its tomogram, or the first of several, and the particles in it, coloured by cluster.

    Parameters
    ----------
    path
        As in `inspection.open`; ``picks.star`` or ``truth.csv`` may replace ``clusters.csv``. Tomogram or particles may be
        missing.

    Raises
    ------
    ValueError
        If the files contradict each other.
    """
    folder = Path(path)
    found = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    files = run_contents.tomogram_files(folder)
    name, image = next(iter(files.items()), ("", None))
    volume = None if image is None else io.read_volume(image)
    table, layers = None, list[Layer]()
    if found is not None:
        size = None if volume is None or found.suffix == ".csv" else volume.voxel_size
        table = io.read_particles(found, voxel_size=size)
    if volume is not None:
        named = name or ("tomogram" if table is None else str(table["tomogram"].iloc[0]))
        headers = {one or named: io.open_volume(path) for one, path in files.items()}
        where = picks.place(named, folder / picks.FOLDER, headers, table=table)
        layers.append(density(volume, metadata={picks.PLACE: where}))
    if found is not None and table is not None:
        session = Session(table, table.set_index("particle_id")["cluster"] if "cluster" in table else None)
        if found.name == LISTS[0] and (folder / SESSION).is_file():
            session = sessions.load(folder / SESSION, table)
        inside = (table["tomogram"] == (name or table["tomogram"].iloc[0])).to_numpy()
        colours = style.lighten(style.particle_inks(session, "cluster")[inside], 0.2)
        layers.append(spheres(table.assign(cluster=session.labels.to_numpy())[inside], colours))
    for _, options, _ in layers:
        options["metadata"] |= {link.MARK: str(folder.resolve())}
    return layers


def read_list(path: str | Path) -> list[Layer]:
    """Layer of the particles of a list, in Å.

    Parameters
    ----------
    path
        As in `io.read_particles`. A missing voxel size or tomogram shape is read from the tomogram beside it.

    Raises
    ------
    ValueError
        If one of these is missing and the folder does not have exactly one tomogram.
    """
    place = Path(path)
    try:
        table = _particles(place)
    except ValueError as error:
        beside = run_contents.map_files(place.parent)
        if len(beside) != 1:
            raise ValueError(
                f"{error}. napari takes that from the tomogram if it is the only one in the folder; there are {len(beside)}"
            ) from error
        volume = io.open_volume(beside[0])
        table = _particles(place, voxel_size=volume.voxel_size, tomogram_shape=volume.shape)
    return [spheres(table.drop(columns=WEDGE), None, name=place.stem)]


def _particles(place: Path, **options: Any) -> pd.DataFrame:
    """Particles of a list; if it names no tomogram, their tomogram has the name of the list."""
    # Most lists lack the tilts; positions do not depend on them, and the layer drops the wedge.
    options["tilts"] = (-60.0, 60.0)
    try:
        return io.read_particles(place, **options)
    except ValueError as error:
        if "give tomogram=" not in str(error):
            raise
    return io.read_particles(place, tomogram=place.stem, **options)


def read_boxes(path: str | Path) -> list[Layer]:
    """Layer of a store of subtomograms: a lazy stack (n, z, y, x) of boxes that opens at their centre.

    Parameters
    ----------
    path
        Folder written by `Subtomograms.save`.
    """
    array, table, voxel_size = store.read(path)
    box = array.shape[1]
    some = np.asarray(array[: min(len(table), 32), centre(box)], dtype=np.float32)
    low, high = np.percentile(some, [1, 99.8]).tolist()
    options: dict[str, Any] = {
        "name": Path(path).stem,
        "scale": [1, *[voxel_size] * 3],
        "units": ("pixel", *viewer.UNITS),
        "axis_labels": ("particle", "z", "y", "x"),
        # The centre of every box is 0, so that napari starts there.
        "translate": [0, *[-centre(box) * voxel_size] * 3],
        "contrast_limits": (low, max(high, low + 1e-6)),
        "colormap": "gray",
    }
    return [(array, options, "image")]


def density(volume: Volume, **options: Any) -> Layer:
    """Layer of a tomogram; the options are those of `viewer.density`."""
    return _taken(viewer.density(viewer.model(), volume, **options))


def spheres(table: pd.DataFrame, inks: np.ndarray | None, *, name: str = viewer.PARTICLES) -> Layer:
    """Layer of particles.

    Parameters
    ----------
    table
        With positions, and perhaps a column ``diameter`` in Å.
    inks
        Colours (n, 4), 0 to 1; one colour by default.
    name
        Of the layer.
    """
    colours = np.tile(to_rgba_array(style.lighter(style.OKABE_ITO[1])), (len(table), 1)) if inks is None else inks
    diameter = float(table["diameter"].median()) if "diameter" in table else DIAMETER
    layer = viewer.spheres(viewer.model(), table, diameter=diameter, inks=colours, name=name)
    _prepare(layer.ndim, diameter)
    return _taken(layer)


def _prepare(ndim: int, diameter: float = 0.0) -> None:
    """Set the camera of the current viewer to keep the hand, if it is empty."""
    from napari import current_viewer

    view = current_viewer()
    if view is not None and not view.layers:
        view.dims.ndim = ndim
        viewer.arrange(view, diameter)


def _taken(layer: Any) -> Layer:
    return layer.as_layer_data_tuple()


def sample_tomogram() -> list[Layer]:
    """Layers of a tomogram of three complexes with truth, simulated in a few seconds, always the same."""
    maps = densities.load(SAMPLE, voxel_size=20.0, box=24)
    imaging = Imaging(snr=0.4, tilts=(-60.0, 60.0))
    volume, truth = generator.tomogram(maps, SAMPLE, shape=(40, 160, 160), imaging=imaging, seed=1)
    palette = {name: style.lighter(ink, 0.2) for name, ink in style.categories(truth["label"]).items()}
    return [density(volume), spheres(truth, to_rgba_array(truth["label"].map(palette).tolist()))]


def sample_densities() -> list[Layer]:
    """A surface of every shipped density, side by side, to scale."""
    view = viewer.model()
    _prepare(3)
    maps = densities.load(voxel_size=10.0, box=64)
    return [_taken(layer) for layer in viewer.averages(view, maps)]
