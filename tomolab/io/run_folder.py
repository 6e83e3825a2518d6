"""Takes the files that a notebook wrote, keeps them in a run folder with a manifest; also says how much notebooks compute.

``manifest.json`` holds for each stage its parameters, seed, time, versions, machine, and the SHA-256 of its files. The
environment variable ``TOMOLAB_SCALE`` sets the scale: ``tiny`` for tests, ``laptop`` for 2 cores without a GPU, or ``paper``
for a GPU and the numbers of Xu et al. 2017.

>>> run = run_folder.open("tour")
>>> cut.save(run.path("subtomograms.zarr"))
>>> run.record("03_subtomograms", parameters={"box": 40}, files=["subtomograms.zarr"], seed=1)
>>> path = run_folder.open("tour").require("subtomograms.zarr", made_by="03_subtomograms")
"""

import contextlib
import itertools
import os
import platform
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from tomolab import __version__, io
from tomolab.io import checksums, safe_load

MANIFEST, PICKS, TABLE, EMBEDDING, BOXES = "manifest.json", "picks.star", "clusters.csv", "embedding", "subtomograms.zarr"
SESSION, LAYOUT, LAYOUT_OF, AVERAGES = "session.npz", "layout.csv", "layout.json", "averages"
MASKS = "masks"
"""Folder of masks: ``masks/TOMOGRAM/NAME.mrc``, or ``masks/NAME.mrc`` for a single tomogram."""
OWN = [MANIFEST, PICKS, TABLE, EMBEDDING, BOXES, SESSION, "session-*.npz", LAYOUT, LAYOUT_OF, AVERAGES, MASKS, "average"]
OWN += ["tomogram.*", "tomograms", "selections", "import", "import.json", "*.safetensors"]
"""What a run folder is made of: names in it, as patterns of `fnmatch`."""
PACKAGES = ("numpy", "scipy", "pandas", "torch", "zarr", "lightning-fabric", "scikit-learn")
"""Packages whose versions a manifest keeps."""


@dataclass(frozen=True)
class Scale:
    """How much the notebooks compute.

    Parameters
    ----------
    name
        ``tiny``, ``laptop`` or ``paper``.
    voxel_size, box
        Å, and edge of subtomograms in voxels.
    count
        Simulated subtomograms per class.
    epochs, epoch_size
        Training: epochs, and simulated subtomograms in each.
    tomogram_shape, tomogram_count
        Simulated tomogram: voxels (z, y, x), and particles per class in it.
    field
        Pixels (y, x) of 10 Å of a simulated tilt series; 630 by 652 is that of the measured one.
    average_count
        Subtomograms in an average, at most.
    """

    name: str
    voxel_size: float
    box: int
    count: int
    epochs: int
    epoch_size: int
    tomogram_shape: tuple[int, int, int]
    tomogram_count: int
    field: tuple[int, int]
    average_count: int


SCALES = {
    scale.name: scale
    for scale in (
        Scale("tiny", 20.0, 20, 8, 1, 256, (40, 128, 128), 6, (150, 160), 24),
        Scale("laptop", 20.0, 20, 150, 20, 4000, (80, 200, 200), 40, (630, 652), 200),
        Scale("paper", 10.0, 40, 1000, 10, 22000, (200, 500, 500), 100, (630, 652), 1000),
    )
}


def scale() -> Scale:
    """The scale that the environment variable ``TOMOLAB_SCALE`` names, by default ``laptop``; ValueError if there is none."""
    name = os.environ.get("TOMOLAB_SCALE") or "laptop"
    if name not in SCALES:
        raise ValueError(f"TOMOLAB_SCALE is {name!r}; it can be {', '.join(SCALES)}")
    return SCALES[name]


def machine() -> dict[str, Any]:
    """Describe what computed a result: versions, processor, cores, GPU."""
    return {
        "tomolab": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(terse=True),
        "cpu": _processor(),
        "cores": joblib.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def root() -> Path:
    """Folder of all runs: ``TOMOLAB_RUNS``, or ``runs`` beside the notebooks, or ``runs`` here."""
    if stated := os.environ.get("TOMOLAB_RUNS"):
        return Path(stated)
    here = Path.cwd()
    return (here.parent if here.name == "notebooks" else here) / "runs"


def open(name: str) -> "Run":  # noqa: A001 - reads run_folder.open
    """Open the run of this name under `root`, or make one; ValueError if the name leads out of that folder."""
    folder = io.inside(root(), name)
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder)


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    def path(self, name: str) -> Path:
        """Path of a file or folder of this run, whose parents are made; ValueError if the name leads out of the run folder."""
        path = io.inside(self.folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def require(self, name: str, *, made_by: str) -> Path:
        """Path of what an earlier notebook made; FileNotFoundError, with the name of that notebook, if it is not there."""
        path = io.inside(self.folder, name)
        if not path.exists():
            raise FileNotFoundError(f"{name} is not in the run folder {self.folder}: run the notebook {made_by} first")
        return path

    def manifest(self) -> dict[str, Any]:
        """Read the manifest, without what is not valid, with a warning; one without stages where nothing was recorded yet."""
        found, faults = self._stored(), list[str]()
        stages = {name: _valid(entry, f"stage {name[:40]}", faults) for name, entry in found["stages"].items()}
        if faults:
            warnings.warn(f"{self.folder / MANIFEST}: left out, because it is not valid: {'; '.join(faults)}", stacklevel=2)
        return found | {"stages": stages}

    def _stored(self) -> dict[str, Any]:
        """The manifest as it is stored."""
        path = self.folder / MANIFEST
        if not path.exists():
            return {"format": 1, "run": self.folder.name, "stages": {}}
        found = safe_load.read_json(io.inside(self.folder, MANIFEST), "a manifest")
        with safe_load.reading(path, "a manifest"):
            safe_load.check_types(found, stages=dict)
        return found

    def record(
        self,
        stage: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        files: Sequence[str | Path] = (),
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Record how a stage was made, in place of its earlier record, and return the entry.

        Parameters
        ----------
        stage
            Name of the notebook or step.
        parameters
            Whatever shaped the result: numbers, text, lists, frozen dataclasses.
        files
            What it wrote, as names in the run folder or paths inside it; hashed here.
        seed
            Seed of its random numbers.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is not there, lies outside the run folder, or a parameter cannot be written as JSON.
        """
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": plain(dict(parameters or {}), "parameters"),
            "seed": plain(seed, "seed"),
            "scale": scale().name,
            "files": {name: io.sha256(self.folder / name) for name in map(self._name, files)},
            "versions": {name: metadata.version(name) for name in PACKAGES},
            "machine": machine(),
        }
        # Two kernels may work on one run: `io.atomic` holds the lock of the manifest.
        with io.atomic(self.folder / MANIFEST) as temporary:
            manifest = self._stored()
            manifest["stages"][plain(stage, "the name of a stage")] = entry
            data = checksums.json_bytes(manifest)
            # Refused now what could not be read.
            safe_load.parse_json(data)
            temporary.write_bytes(data)
        return entry

    def changed(self) -> list[str]:
        """Names of recorded files that are gone, or no longer what they were when the stage that wrote them was recorded."""
        stages = self.manifest()["stages"].values()
        recorded = {name: sha256 for entry in stages for name, sha256 in entry.get("files", {}).items()}
        return [name for name, sha256 in recorded.items() if self._hash(name) != sha256]

    def _hash(self, name: str) -> str | None:
        """Hash of a file or folder; None of what is gone, and of what lies, or leads, out of the run folder."""
        try:
            path = io.inside(self.folder, name)
            for link in (one for one in path.rglob("*") if one.is_symlink()):
                io.inside(self.folder, link.relative_to(self.folder).as_posix())
        except ValueError:
            return None
        return io.sha256(path) if path.is_file() or path.is_dir() else None

    def _name(self, path: str | Path) -> str:
        whole = next((place for place in (self.folder / path, Path(path)) if place.exists()), None)
        if whole is None:
            raise FileNotFoundError(f"{path} is not there to be recorded, in the run folder {self.folder}")
        if not whole.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{path} lies outside the run folder {self.folder}")
        return whole.resolve().relative_to(self.folder.resolve()).as_posix()


def _valid(entry: Any, where: str, faults: list[str]) -> dict[str, Any]:
    """The valid fields of the entry of a stage; `faults` gets the others."""
    good = dict(entry) if isinstance(entry, dict) else {}
    wrong = [name for name in ("parameters", "versions", "machine", "files") if not isinstance(good.get(name) or {}, dict)]
    faults += [f"{name} of {where}, which is no object" for name in wrong] + ([] if isinstance(entry, dict) else [where])
    files = {} if "files" in wrong else good.get("files") or {}
    texts = {name: value for name, value in files.items() if isinstance(value, str)}
    faults += [f"the hash of {name[:40]} of {where}, which is no text" for name in files.keys() - texts.keys()]
    return {name: value for name, value in good.items() if name not in wrong} | ({"files": texts} if "files" in good else {})


def refuse_own(path: Path, folder: Path | None) -> None:
    """Raise FileExistsError if a path is, or could become, a part of what a run folder is made of.

    A run folder is the given one, and any with a table of clusters, a session or a manifest. Its parts are what `OWN` names,
    and what its manifest has recorded.
    """
    whole = path.absolute().parent.resolve() / path.name
    for place in whole.parents:
        recorded = _recorded(place)
        given = folder is not None and place == folder.resolve()
        if given or recorded or (place / TABLE).is_file() or (place / SESSION).is_file():
            # Some systems take names for one that differ in case only.
            name = whole.relative_to(place).as_posix().casefold()
            if any(fnmatch(name.split("/")[0], own) for own in OWN) or any(
                f"{name}/".startswith(f"{own}/") for own in recorded
            ):
                raise FileExistsError(f"{path.name} is a part of the run folder {place}, which stays: choose another name")


def _recorded(folder: Path) -> set[str]:
    """Names of the files and folders that the manifest of a folder has recorded; none without a manifest."""
    with contextlib.suppress(ValueError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stages = Run(folder).manifest()["stages"].values()
        return {name.casefold() for entry in stages for name in entry.get("files", {})}
    return set()


@contextlib.contextmanager
def replacing(*files: Path, folder: Path | None, replace: bool) -> Iterator[list[Path]]:
    """Let the block write files; what it replaces stays beside as ``NAME.~1~``, or with the next free number.

    Parameters
    ----------
    files
        What the block writes.
    folder
        The run folder, of which no part is replaced (`refuse_own`).
    replace
        Whether files that are there may be replaced.

    Yields
    ------
    list
        After the block: where the replaced files are.

    Raises
    ------
    FileExistsError
        If a file is there and may not be replaced, or is a part of a run folder.
    """
    for one in files:
        refuse_own(one, folder)
    there = [one for one in files if os.path.lexists(one)]
    if there and not replace:
        names = " and ".join(one.name for one in there[:3])
        raise FileExistsError(f"{names} is there already; choose another name, or tick that it may be replaced")
    copies = {one: _copied(one) for one in there if one.is_file()}
    earlier: list[Path] = []
    try:
        yield earlier
    finally:
        for one, copy in copies.items():
            if one.is_file() and io.sha256(one) == io.sha256(copy):
                copy.unlink()
            else:
                earlier.append(copy)


def _copied(path: Path) -> Path:
    """A copy of a file beside it, under the first free number."""
    for number in itertools.count(1):
        copy = path.with_name(f"{path.name}.~{number}~")
        with contextlib.suppress(FileExistsError):
            copy.touch(exist_ok=False)
            break
    shutil.copy2(path, copy)
    return copy


def earlier_text(earlier: Sequence[Path]) -> str:
    """Where replaced files are, as the end of a message; empty if none was."""
    return f"; before: {', '.join(one.name for one in earlier)}" if earlier else ""


def plain(value: Any, where: str) -> Any:
    """Turn dataclasses, paths and numpy values into what JSON can hold; ValueError, with the place, for other values."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), where)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else list(value)
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(items)]
    if isinstance(value, np.generic):
        return plain(value.item(), where)
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, str | Path):
        # A name of a file can hold bytes that are no text.
        return str(value).encode(errors="backslashreplace").decode()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}, which a manifest cannot hold; give numbers, text or lists of them")


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
