"""Holdings: what a run folder holds that an inspection can show, and the session that was left there.

>>> table = run_contents.table("runs/first")
>>> session = run_contents.session("runs/first", Session(table))
"""

import itertools
import json
import warnings
from pathlib import Path

import pandas as pd

from tomolab import io
from tomolab.averaging import half_maps
from tomolab.averaging.half_maps import Average
from tomolab.clusters import layouts
from tomolab.inspection import session as sessions
from tomolab.inspection.session import Session
from tomolab.io import safe_load
from tomolab.learning import embedding
from tomolab.learning.embedding import Embedding
from tomolab.subtomograms import dataset
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import Volume

TABLE, EMBEDDING, BOXES = "clusters.csv", "embedding.npz", "subtomograms.zarr"
ENDINGS = (".mrc", ".rec", ".map", ".mrc.gz", ".rec.gz", ".mrc.bz2", ".rec.bz2", ".zarr")
"""Of the names of tomograms; where there are several of one name, the first of these is taken."""
SESSION, LAYOUT, LAYOUT_OF, AVERAGES = "session.npz", "layout.csv", "layout.json", "averages"
POINTS = ("particle_id", "x", "y")
"""Columns of a layout."""


def table(folder: Path) -> pd.DataFrame:
    """Particle table; FileNotFoundError if there is none, naming the notebook that makes it."""
    if not io.inside(folder, TABLE).is_file():
        raise FileNotFoundError(f"there is no {TABLE} in {folder}: run the notebook 05_clusters first")
    return io.read_particles(folder / TABLE)


def features(folder: Path) -> Embedding | None:
    """Embedding, if there is one."""
    path = io.inside(folder, EMBEDDING)
    return embedding.load(path) if path.is_file() else None


def boxes(folder: Path) -> Subtomograms | None:
    """Subtomograms, if there are any."""
    path = io.inside(folder, BOXES)
    return dataset.open(path) if path.exists() else None


def session(folder: Path, fresh: Session) -> Session:
    """The session that was left here, unless it was about other particles or clusters than a fresh one.

    Then it is put aside under another name, with a warning, and the fresh one is given back.
    """
    kept = io.inside(folder, SESSION)
    fresh.meet(kept)
    if not kept.is_file():
        return fresh
    try:
        left = sessions.load(kept, fresh.particles)
        if left.origin == fresh.origin:
            return left
        why = f"{TABLE} is not what it began with"
    except ValueError as error:
        why = str(error)
    aside = kept.rename(free(folder))
    fresh.meet(kept)
    warnings.warn(f"the session in {folder} cannot go on: {why}. A new one begins; it is kept as {aside.name}", stacklevel=3)
    return fresh


def free(folder: Path) -> Path:
    """A place for a session beside the one that is usual, where there is none yet."""
    return next(place for n in itertools.count(1) if not (place := folder / f"session-{n}.npz").exists())


def points(folder: Path, found: Embedding | None, *, seed: int) -> pd.DataFrame | None:
    """Layout that was left here, unless it is of another embedding: then it is made of this one, and kept; None without either.

    ``layout.json`` tells what it was made of. A layout without goes by its time: the embedding must not be newer.
    """
    kept, mark, source = io.inside(folder, LAYOUT), io.inside(folder, LAYOUT_OF), folder / EMBEDDING
    if kept.is_file() and (found is None or _made_of(mark, kept, source)):
        return safe_load.listing(kept, POINTS, "a layout")
    if found is None:
        return None
    made = layouts.flat(found, seed=seed)
    mark.unlink(missing_ok=True)
    with io.atomic(kept) as temporary:
        made.to_csv(temporary, index=False)
    with io.atomic(mark) as temporary:
        temporary.write_text(json.dumps({EMBEDDING: io.sha256(source)}) + "\n")
    return made


def _made_of(mark: Path, kept: Path, source: Path) -> bool:
    """Whether a layout is of an embedding."""
    if mark.is_file():
        return safe_load.mapping(mark) == {EMBEDDING: io.sha256(source)}
    return kept.stat().st_mtime >= source.stat().st_mtime


def tomograms(folder: Path, particles: pd.DataFrame) -> dict[str, Volume]:
    """Those of these particles that are here."""
    return {name: io.read_volume(path) for name, path in places(folder, particles).items()}


def places(folder: Path, particles: pd.DataFrame | None = None) -> dict[str, Path]:
    """Files of the tomograms of these particles that are here: ``tomograms/NAME.mrc``, or ``tomogram.mrc`` for one only.

    Other maps will do as well (`ENDINGS`). Without particles, of all that are here; a ``tomogram.mrc`` has no name then.
    """
    single = _tomogram(folder, "tomogram")
    if particles is None:
        if single is not None:
            return {"": single}
        # Of several maps of one name the one whose ending stands first is taken: it comes last here.
        here = {path.name.removesuffix(end): path for end in ENDINGS[::-1] for path in folder.glob(f"tomograms/*{end}")}
        return dict(sorted(here.items()))
    names = particles["tomogram"].unique().tolist()
    if len(names) == 1 and single is not None:
        return {names[0]: single}
    found = {name: _tomogram(folder, f"tomograms/{name}") for name in names}
    return {name: path for name, path in found.items() if path is not None}


def maps(folder: Path) -> list[Path]:
    """Maps and tomograms in a folder, by their names; a store of subtomograms is none."""
    found = {path for end in ENDINGS for path in folder.glob(f"*{end}") if not (path / "particles.parquet").exists()}
    return sorted(found)


def _tomogram(folder: Path, name: str) -> Path | None:
    """The map of this name, if there is one."""
    candidates = (io.inside(folder, f"{name}{end}") for end in ENDINGS)
    return next((path for path in candidates if path.exists()), None)


def diameter(particles: pd.DataFrame, cut: Subtomograms | None) -> float:
    """Of a particle, in Å: that in the table, or half of the box; ValueError if neither says."""
    if "diameter" in particles:
        return float(particles["diameter"].median())
    if cut is None:
        raise ValueError("nothing says how large a particle is: give diameter= in Å")
    return cut.box * cut.voxel_size / 2


def made(folder: Path) -> dict[str, Average]:
    """Averages by name, in the order in which they were made."""
    places = sorted(io.inside(folder, AVERAGES).glob("*/record.json"), key=lambda one: one.lstat().st_mtime)
    found = [half_maps.load(place.parent) for place in places]
    return {one.record.get("name", place.parent.name.replace("_", " ")): one for one, place in zip(found, places, strict=True)}
