"""Takes known maps by name; gives a catalogue of them, for `identify`: with a table, saved in a folder and checked when read.

>>> catalogue = Catalogue.from_maps(simulation.load_densities(), about=simulation.catalogue().set_index("name"))
>>> catalogue = Catalogue.from_folder("maps")
>>> catalogue.add("my complex", average).save("runs/catalogue")
>>> Catalogue.load("runs/catalogue").table
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tomolab import io, volumes
from tomolab.averaging import half_maps
from tomolab.averaging.fsc import resolution_at
from tomolab.averaging.half_maps import Average
from tomolab.averaging.matching import HALF, map_and_mask
from tomolab.conventions import centre
from tomolab.io import safe_load
from tomolab.volumes import Volume, apply_mask

FINEST_VOXELS = 5.0
"""Å: maps of finer voxels are resampled to this size for a catalogue."""
NAME = re.compile(r"\w(?:[\w.+ -]{0,98}\w)?", re.ASCII)
FILES = (".mrc", ".map", ".mrc.gz", ".map.gz", ".mrc.bz2", ".map.bz2", ".em")
INDEX = "index.json"


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Known maps by name. It is not changed: `add` gives a new one.

    Parameters
    ----------
    maps
        The maps by name.
    table
        A row for each, by name: ``source``, ``mass_kda`` (missing if not known), ``diameter`` of the density, ``voxel_size``
        and ``resolution`` in Å, and ``sha256`` of the values.
    prepared
        What `identify` made of the maps, by voxel size and box. It is kept in memory only.
    """

    maps: dict[str, Volume]
    table: pd.DataFrame
    prepared: dict[tuple[float, int], Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} maps)"

    @classmethod
    def from_maps(cls, maps: Mapping[str, Volume], *, about: pd.DataFrame | None = None, source: str = "") -> "Catalogue":
        """A catalogue of maps in memory, such as `simulation.load_densities` gives.

        Parameters
        ----------
        maps
            By name, of any voxel sizes and shapes, with density brighter than its surroundings. Maps with voxels below 5 Å are
            resampled to 5 Å.
        about
            What is known of them, by name; of its columns ``source``, ``mass_kda`` and ``resolution`` (Å, of the map; twice the
            voxel size by default) are used.
        source
            Where they come from, if `about` does not say it.

        Raises
        ------
        ValueError
            If a name is not made of letters, digits and ``_ . + -``, two differ only in case, or a map is constant.
        """
        known = pd.DataFrame() if about is None else about
        if not known.index.is_unique:
            raise ValueError(f"about names {known.index[known.index.duplicated()][0]!r} twice: give one row for each map")
        entries, rows = {}, {}
        for name, volume in maps.items():
            row = known.loc[name].dropna().to_dict() if name in known.index else {}
            entries[name], rows[name] = _entry(name, volume, {"source": source} | row)
        _check_names(entries)
        return cls(entries, _table(rows))

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, voxel_size: float | None = None, about: pd.DataFrame | None = None
    ) -> "Catalogue":
        """A catalogue of all maps in a folder (.mrc, .map, with .gz or .bz2 or without, .em), named as the files.

        Parameters
        ----------
        folder
            Where the maps are; folders in it are not read.
        voxel_size
            Å; needed for files that do not state it, or state 1 Å, as many programs do that do not know it.
        about
            As in `from_maps`; by name of the file without suffix.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or it has no maps.
        ValueError
            If a file cannot be read, holds NaN, or its voxel size is not known; and as `from_maps`.
        """
        paths = [path for path in sorted(Path(folder).iterdir()) if path.name.lower().endswith(FILES)]
        if not paths:
            raise FileNotFoundError(f"{folder} has no maps: expected files that end in {', '.join(FILES)}")
        maps: dict[str, Volume] = {}
        sources: dict[str, str] = {}
        for path in paths:
            name = re.sub(r"\.(?:gz|bz2)$", "", path.name, flags=re.IGNORECASE).rpartition(".")[0]
            if name in maps:
                raise ValueError(f"{folder} has two maps that are called {name}: {sources[name]} and {path.name}")
            maps[name], sources[name] = io.read_volume(path, voxel_size=voxel_size), path.name
        known = pd.DataFrame({"source": sources}) if about is None else about.combine_first(pd.DataFrame({"source": sources}))
        return cls.from_maps(maps, about=known)

    @classmethod
    def load(cls, folder: str | Path) -> "Catalogue":
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the folder or a file of it is missing.
        ValueError
            If a file is damaged, or a map is not the one that was saved.
        """
        path = io.inside(folder, INDEX)
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is not a saved catalogue: it has no {INDEX}")
        with safe_load.reading(path, "a catalogue"):
            rows = _read_index(safe_load.read_json(path))
            _check_names(rows)
        maps = {}
        for name, row in rows.items():
            file = io.inside(folder, f"{name}.mrc")
            maps[name] = io.read_volume(file, voxel_size=row["voxel_size"])
            found = _sha256(maps[name])
            if found != row["sha256"]:
                raise ValueError(
                    f"{file} is not the map that was saved: the SHA-256 of its values is {found[:12]}…, "
                    f"expected {row['sha256'][:12]}…"
                )
        return cls(maps, _table(rows))

    def save(self, folder: str | Path) -> Path:
        """Write a .mrc file for each map and index.json, all or nothing; replaces a catalogue that is there."""
        records = [
            {"name": name} | {key: value for key, value in row.items() if value == value}
            for name, row in self.table.to_dict("index").items()
        ]
        with io.atomic(folder) as temporary:
            temporary.mkdir(parents=True, exist_ok=True)
            for name, volume in self.maps.items():
                io.write_volume(volume, temporary / f"{name}.mrc")
            (temporary / INDEX).write_text(json.dumps({"version": 1, "maps": records}, indent=1), encoding="utf-8")
        return Path(folder)

    def add(self, name: str, structure: Average | Volume, *, source: str = "", mass_kda: float | None = None) -> "Catalogue":
        """A catalogue with one more map, or another map of that name.

        Parameters
        ----------
        name
            Of the structure.
        structure
            A reliable average, whose map is masked and counts to where its FSC falls to 0.5; or any map.
        source, mass_kda
            As in the table.

        Raises
        ------
        ValueError
            If the average is not reliable, and as `from_maps`.
        """
        about: dict[str, Any] = {"source": source} | ({} if mass_kda is None else {"mass_kda": mass_kda})
        volume, mask = map_and_mask(structure)
        if isinstance(structure, Average):
            if not structure.reliable:
                raise ValueError(f"{structure} is no known structure: its halves do not agree")
            about["resolution"] = resolution_at(structure.fsc, HALF)
            if mask is not None:
                masked = apply_mask(torch.from_numpy(volume.data), mask / volume.voxel_size)
                volume, about["diameter"] = Volume(masked.numpy(), volume.voxel_size), mask
        entry, row = _entry(name, volume, about)
        maps = self.maps | {name: entry}
        _check_names(maps)
        return Catalogue(maps, _table(self.table.to_dict("index") | {name: row}))

    def choose(self, names: Iterable[str]) -> "Catalogue":
        """Only the maps of these names.

        Raises
        ------
        ValueError
            If a name is unknown.
        """
        names = list(dict.fromkeys(names))
        unknown = [name for name in names if name not in self.maps]
        if unknown:
            raise ValueError(f"the catalogue has no map {', '.join(map(str, unknown))}")
        return Catalogue({name: self.maps[name] for name in names}, self.table.loc[names])


def centred(volume: Volume, box: int) -> Volume:
    """A map in a cube, the centre of mass of its density at the centre to half a voxel."""
    place, _ = _place(volume)
    low = np.rint(place).astype(int) - centre(box)
    data = np.zeros((box,) * 3, dtype=np.float32)
    inside, there = volumes.overlap(low, box, volume.shape)
    data[there] = volume.data[inside] - _surroundings(volume)
    return Volume(data, volume.voxel_size)


def _surroundings(volume: Volume) -> float:
    """Median of the outermost voxels."""
    inner = np.ones(volume.shape, dtype=bool)
    inner[1:-1, 1:-1, 1:-1] = False
    return float(np.median(volume.data[inner]))


def _place(volume: Volume) -> tuple[np.ndarray, float]:
    """Centre of mass of the density (3,) in voxels, and the diameter in Å of the sphere about it that holds nearly all.

    Density is what is brighter than the surroundings by a fifth of the brightest.
    """
    data = volume.data - _surroundings(volume)
    peak = float(np.quantile(data, 0.999)) if data.size > 10_000 else float(data.max())
    if peak <= 0:
        raise ValueError("it has no density that is brighter than its surroundings: invert its contrast")
    at = np.argwhere(data > 0.2 * peak)
    weight = data[tuple(at.T)]
    middle = np.average(at, axis=0, weights=weight)
    distance = np.linalg.norm(at - middle, axis=1)
    order = distance.argsort()
    share = np.cumsum(weight[order]) / weight.sum()
    return middle, float(2 * distance[order][np.searchsorted(share, 0.99)] * volume.voxel_size)


def _entry(name: str, volume: Volume, about: Mapping[str, Any]) -> tuple[Volume, dict[str, Any]]:
    """A map for a catalogue, and its row of the table."""
    if np.ptp(volume.data) == 0:
        raise ValueError(f"the map {name} is constant")
    if volume.voxel_size < FINEST_VOXELS:
        volume = volumes.resample(volume, FINEST_VOXELS)
    try:
        diameter = about.get("diameter", _place(volume)[1])
    except ValueError as error:
        raise ValueError(f"the map {name} cannot be used: {error}") from error
    row = {
        "source": str(about.get("source", "")),
        "mass_kda": float(about.get("mass_kda", np.nan)),
        "diameter": float(diameter),
        "voxel_size": volume.voxel_size,
        "resolution": max(float(about.get("resolution", 0)), 2 * volume.voxel_size),
        "sha256": _sha256(volume),
    }
    return volume, row


def _table(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    columns = ["source", "mass_kda", "diameter", "voxel_size", "resolution", "sha256"]
    return pd.DataFrame.from_dict(dict(rows), orient="index", columns=columns).rename_axis("name")


def _check_names(names: Iterable[str]) -> None:
    """Raise ValueError unless every name can be that of a file, on systems that do not tell capitals apart as well."""
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"{str(name)[:80]!r} cannot name a map: up to 100 letters, digits, spaces and _ . + - are expected"
            )
        if name.lower() in seen:
            raise ValueError(f"{seen[name.lower()]!r} and {name!r} differ only in case: rename one")
        seen[name.lower()] = name


def _read_index(index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows of the table by name from the index of a saved catalogue; ValueError if it is none."""
    safe_load.check_types(index, version=int, maps=list)
    if index["version"] != 1:
        raise ValueError(f"it is of version {index['version']}, expected 1")
    rows: dict[str, dict[str, Any]] = {}
    for one in index["maps"]:
        if not isinstance(one, dict):
            raise ValueError(f"it lists {str(one)[:40]!r}, expected an object for each map")
        numbers = [name for name in ("mass_kda", "diameter", "voxel_size", "resolution") if name != "mass_kda" or name in one]
        safe_load.check_types(one, name=str, source=str, sha256=str, **dict.fromkeys(numbers, (int, float)))
        wrong = [name for name in numbers if not 0 < one[name] < half_maps.LARGEST]
        if wrong:
            raise ValueError(f"the {wrong[0]} of {one['name'][:80]!r} is {one[wrong[0]]}, expected a positive number")
        if one["name"] in rows:
            raise ValueError(f"it lists {one['name'][:80]!r} twice")
        rows[one["name"]] = {
            key: one.get(key, np.nan) for key in ("source", "mass_kda", "diameter", "voxel_size", "resolution", "sha256")
        }
    return rows


def _sha256(volume: Volume) -> str:
    """SHA-256 of the shape and the values (float32, little-endian) of a map."""
    digest = hashlib.sha256(" ".join(map(str, volume.shape)).encode() + b"\n")
    digest.update(volume.data.astype("<f4").tobytes())
    return digest.hexdigest()
