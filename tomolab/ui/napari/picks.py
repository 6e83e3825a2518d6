"""Takes clicks in a tomogram of a napari viewer, gives picks: a Points layer that is saved as a particle list, with undo.

napari's own tools of the layer add, select, move and delete picks. Each change is one step that can be undone, also by Ctrl+Z
and Ctrl+Shift+Z in the canvas. A list may have picks of several tomograms; the layer has those of the shown one. Works without
Qt.

>>> picks = Picks(view, diameter=250)
>>> picks.show(view.layers["tomogram"])
>>> picks.start().add([[100.0, 340.0, 82.5]])           # Å, zyx, as a click in the canvas does
>>> picks.undo(); picks.redo()
>>> picks.save("mine")                                  # picks/mine.star of the run folder
"""

import errno
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from psygnal import Signal

from tomolab import io, particles
from tomolab.conventions import ANGLES, POSITION, SOURCE, WEDGE
from tomolab.inspection import input_particles
from tomolab.inspection.input_particles import ListOptions
from tomolab.inspection.input_tomograms import InputTomogram
from tomolab.io import paths, run_folder
from tomolab.io.lists import formats
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.ui import style
from tomolab.ui.napari import viewer as views

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Points

PLACE = "tomolab picks"
"""Key in the metadata of an image in which one can pick; its value is a `Place`."""
FOLDER = "picks"
"""Folder of lists in a run folder."""
NEW = -1
"""Id of a pick that has not been saved."""
State = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Place:
    """Where the picks in an image belong.

    Parameters
    ----------
    tomogram
        Name of the tomogram in lists.
    folder
        Folder of the lists.
    tomograms
        All tomograms that a list may name, with their tilts if these are known.
    sized
        Whether the voxel size is known; if not, the voxels of the layer are 1 Å.
    """

    tomogram: str
    folder: Path
    tomograms: Mapping[str, InputTomogram]
    sized: bool = True


def place(
    tomogram: str, folder: Path, headers: Mapping[str, Tomogram], *, table: pd.DataFrame | None = None, sized: bool = True
) -> Place:
    """The `Place` of a tomogram, with the tilts of the particles of a table, if there is one."""
    tilts = pd.DataFrame() if table is None else table.groupby("tomogram")[WEDGE].first()
    known = {str(name): (low, high) for name, low, high in tilts.itertuples()}
    inputs = {name: InputTomogram(name, header, "bright", known.get(name), {}) for name, header in headers.items()}
    return Place(tomogram, folder, inputs, sized)


class Picks:
    """Picks in the tomograms of a viewer.

    Parameters
    ----------
    viewer
        From `viewer.open` or `viewer.model`, or any other of napari.
    diameter
        Of the circles, in Å.
    """

    changed = Signal()
    """Sent after every change of the picks or of the tomogram."""
    refused = Signal(str)
    """Sent with the reason when a pick is not taken."""

    def __init__(self, viewer: "ViewerModel", *, diameter: float) -> None:
        self.viewer, self.diameter = viewer, float(diameter)
        self.image: Image | None = None
        self.layer: Points | None = None
        """The layer of the picks; None before `start`, and if the user has removed it."""
        self.tomograms: dict[str, InputTomogram] = {}
        self._tables: State = {}
        self.past, self.future = list[State](), list[State]()
        """All picks before each change that can be undone, and before each undo that can be redone."""
        self._written: dict[Path, str] = {}
        self._saved = self._tables

    @property
    def unsaved(self) -> bool:
        """Whether there are picks that no list has."""
        return self._tables is not self._saved and bool(self.counts)

    @property
    def place(self) -> Place | None:
        """Of the shown tomogram; None if there is none in which one can pick."""
        return None if self.image is None else self.image.metadata[PLACE]

    @property
    def counts(self) -> dict[str, int]:
        """Number of picks by tomogram."""
        return {name: len(table) for name, table in self._tables.items() if len(table)}

    def set_diameter(self, value: float) -> None:
        """Draw circles of another diameter in Å."""
        self.diameter = float(value)
        if self.layer is not None:
            self.layer.size = self.layer.current_size = self.diameter
            views.arrange(self.viewer, self.diameter)

    # Tomogram

    def show(self, image: "Image | None") -> None:
        """Take picks in an image with a `Place`, and show those of its tomogram."""
        self.image = image
        if self.place is not None:
            new, known = self.place.tomograms, self.tomograms
            other = [name for name in new.keys() & known.keys() if _size(new[name]) != _size(known[name])]
            if other:
                self.image = None
                self.refused.emit(f"there are picks in another tomogram called {other[0]}, of other voxels: use another window")
            else:
                self.tomograms = dict(new) | known
        if self.layer is not None:
            self._fill()
            self.viewer.layers.move(self.viewer.layers.index(self.layer), -1)
        self.changed.emit()

    def state_voxel_size(self, size: float) -> None:
        """Say the voxel size in Å of a tomogram whose file does not. ValueError if it is known."""
        given = self.place
        if given is None or given.sized or self.image is None:
            raise ValueError("the voxel size is known")
        one = given.tomograms[given.tomogram]
        one = replace(one, voxels=replace(one.voxels, voxel_size=float(size)))
        self.image.scale = [float(size)] * 3
        self.image.metadata[PLACE] = replace(given, tomograms={given.tomogram: one}, sized=True)
        self.tomograms[given.tomogram] = one
        self.changed.emit()

    def state_tilts(self, low: float, high: float) -> None:
        """Say the lowest and highest tilt in degrees of the shown tomogram."""
        if not -90 <= low < high <= 90:
            raise ValueError(f"tilts are the lowest and the highest in degrees, got {low:g} and {high:g}")
        name = self._ready().tomogram
        self.tomograms[name] = replace(self.tomograms[name], tilts=(float(low), float(high)))
        self.changed.emit()

    def _ready(self) -> Place:
        if self.place is None:
            raise ValueError("open a tomogram first: File, Open, a run folder or an .mrc file")
        if not self.place.sized:
            raise ValueError(f"the file of {self.place.tomogram} does not say its voxel size: type it first")
        return self.place

    # Picks

    def start(self) -> "Points":
        """The layer of the picks, active, so that a click adds one; ValueError if there is no tomogram to pick in."""
        self._ready()
        if self.layer is None:
            ink = np.array(to_rgba(style.OKABE_ITO[6]))
            self.layer = self.viewer.add_points(
                np.empty((0, 3)),
                name="picks",
                features=pd.DataFrame({"particle_id": np.empty(0, dtype=np.int64)}),
                size=self.diameter,
                face_color=views.faces(ink[None])[0],
                border_color=ink,
                border_width=views.BORDER,
                units=views.UNITS,
                projection_mode="rescale_spherical",
            )
            self.layer.events.data.connect(self._edited)
            self.layer.bind_key("Control-Z", lambda _: self.undo())
            self.layer.bind_key("Control-Shift-Z", lambda _: self.redo())
            views.arrange(self.viewer, self.diameter)
            self._fill()
        self.viewer.layers.selection.active = self.layer
        self.layer.mode = "add"
        return self.layer

    def undo(self) -> None:
        """Undo the last change, if there is one."""
        self._step(self.past, self.future)

    def redo(self) -> None:
        """Redo the change that was undone last, if there is one."""
        self._step(self.future, self.past)

    def _step(self, origin: list[State], other: list[State]) -> None:
        if origin:
            other.append(self._tables)
            self._tables = origin.pop()
            self._fill()
            self.changed.emit()

    def _do(self, tables: State) -> None:
        self.past.append(self._tables)
        self.future.clear()
        self._tables = tables
        self.changed.emit()

    def _edited(self, event: Any) -> None:
        """Take a change that the user made in the layer, or restore the picks if they would lie where none can be."""
        layer, given = self.layer, self.place
        if layer is None or str(event.action) not in ("added", "removed", "changed"):
            return
        problem = "there is no tomogram to pick in" if given is None else ""
        if given is not None and str(event.action) != "removed":
            problem = self._problem(layer, self.tomograms[given.tomogram].voxels)
        if problem or given is None:
            self._fill()
            self.viewer.status = problem
            self.refused.emit(problem)
            return
        if str(event.action) == "added":
            # napari gives a new point the features of the point that was selected last: its id, its angles.
            old = layer.features.iloc[: min(event.data_indices)]
            new = pd.DataFrame({name: [_of_new(old[name])] * len(event.data_indices) for name in old})
            layer.features = pd.concat([old, new], ignore_index=True) if len(old) else new
        positions = pd.DataFrame(np.array(layer.data, dtype=float), columns=POSITION)
        self._do(self._tables | {given.tomogram: pd.concat([positions, layer.features.reset_index(drop=True)], axis=1)})

    def _problem(self, layer: "Points", voxels: Tomogram) -> str:
        if self.viewer.dims.ndisplay == 3:
            return "a click in 3-D has no depth: show slices (2-D) to pick"
        voxel = layer.data / voxels.voxel_size
        inside = ((voxel >= -0.5) & (voxel <= np.array(voxels.shape) - 0.5)).all()
        return "" if inside else "a pick must lie inside of the tomogram"

    def _fill(self) -> None:
        """Show the picks of the shown tomogram in the layer."""
        layer = self.layer
        if layer is None:
            return
        name = "" if self.place is None else self.place.tomogram
        table = self._tables.get(name, pd.DataFrame(columns=[*POSITION, "particle_id"]).astype(float))
        with layer.events.data.blocker():
            layer.selected_data = set()
            layer.data = particles.positions(table)
            layer.features = table.drop(columns=POSITION).reset_index(drop=True)
            layer.size = layer.current_size = self.diameter

    # Lists

    def file(self, name: str) -> Path:
        """File of a list: in the folder of the lists, and .star, unless the name says otherwise."""
        if not name.strip():
            raise ValueError("name the list")
        path = Path(name.strip()).expanduser()
        if path.suffix.lower() not in formats.WRITERS:
            path = path.with_name(f"{path.name}.star")
        return path if path.is_absolute() else self._ready().folder / path

    def load(self, path: str | Path) -> None:
        """Take the particles of a list as picks instead of the present ones, in one step.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it cannot be read, or does not fit the tomograms.
        """
        self._ready()
        table = input_particles.read_inputs(str(path), list(self.tomograms.values()), ListOptions())
        table = table.rename(columns={new: old for old, new in input_particles.OWN.items()})
        for name, one in table.groupby("tomogram"):
            known = self.tomograms[str(name)]
            self.tomograms[str(name)] = replace(known, tilts=known.tilts or tuple(one[list(WEDGE)].iloc[0]))
        kept = table.drop(columns=[*WEDGE, *SOURCE], errors="ignore")
        self._do({str(name): one.drop(columns="tomogram").reset_index(drop=True) for name, one in kept.groupby("tomogram")})
        self._fill()

    def table(self) -> pd.DataFrame:
        """Particle table of all picks. New ones have the next free ids and are not rotated.

        Raises
        ------
        ValueError
            If there are none, or the tilts of a tomogram are not known.
        """
        tilts = {name: self.tomograms[name].tilts for name in self.counts}
        unknown = [name for name, pair in tilts.items() if pair is None]
        if unknown:
            raise ValueError(f"between which tilts was {unknown[0]} recorded? Type the lowest and the highest in degrees")
        if not tilts:
            raise ValueError("there are no picks: add some by a click in a slice")
        parts = [
            self._tables[name].assign(tomogram=name, **dict(zip(WEDGE, pair, strict=True)))
            for name, pair in tilts.items()
            if pair
        ]
        table = pd.concat(parts, ignore_index=True)
        for angle in ANGLES:
            table[angle] = table[angle].astype(float).fillna(0.0) if angle in table else 0.0
        ids = np.array(table["particle_id"], dtype=np.int64)
        fresh = (ids == NEW) | table["particle_id"].duplicated().to_numpy()
        first = max(0, int(ids.max())) + 1
        ids[fresh] = np.arange(first, first + fresh.sum())
        return particles.check(table.assign(particle_id=ids))

    def save(self, name: str, *, replace: bool = False) -> Path:
        """Write all picks as a particle list; return its path.

        Parameters
        ----------
        name
            Name or path of the list; its suffix is the format (`io.write_particles`), .star by default.
        replace
            Replace a file that was not saved from these picks.

        Raises
        ------
        FileExistsError
            If there is such a file already, or it is a part of a run folder.
        ValueError
            If there are no picks, or the format cannot hold them.
        """
        path, table = self.file(name), self.table()
        if path.exists() and not replace and self._written.get(path) != paths.fingerprint(path):
            raise FileExistsError(errno.EEXIST, "is there already: give another name, or allow to replace it", str(path))
        used = [self.tomograms[one].voxels for one in table["tomogram"].unique()]
        known: dict[str, Any] = {"voxel_size": used[0].voxel_size}
        known["tomogram_shape"] = dict(zip(table["tomogram"].unique(), (one.shape for one in used), strict=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {key: value for key, value in known.items() if key in formats.options(path)}
        # A list of these picks needs no copy; another one stays beside.
        own = path.exists() and self._written.get(path) == paths.fingerprint(path)
        with nullcontext() if own else run_folder.replacing(path, folder=None, replace=replace):
            io.write_particles(table, path, **known)
        self._written[path], self._saved = paths.fingerprint(path), self._tables
        return path


def _size(one: InputTomogram) -> tuple[Any, ...]:
    return one.voxels.shape, one.voxels.voxel_size


def _of_new(values: pd.Series) -> Any:
    """Value of a new pick in a column: of RELION's own what all others share, such as the optics group; else none."""
    if values.name == "particle_id":
        return NEW
    distinct = values.unique()
    if len(distinct) == 1 and str(values.name).startswith("rln"):
        return distinct[0]
    return np.nan if pd.api.types.is_numeric_dtype(values) else None
