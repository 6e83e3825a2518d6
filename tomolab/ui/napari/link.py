"""Takes an inspection and a napari viewer, shows one in the other; the selections of both follow each other.

Works with a window and with a viewer without Qt.

>>> work = inspection.open("runs/first")
>>> shown = link(viewer.open(), work)
>>> shown.show("TS_02")                       # another tomogram
>>> shown.map(True)                           # averages at every particle, in 3-D
>>> shown.close()

A selection in napari replaces the selection in the shown tomogram; that in other tomograms stays. Hidden particles cannot be
selected, not even by "select all"; particles that are hidden after selection stay selected until the next selection. A drag of
the mouse is one step of the session. Particles that the user moves, adds or deletes in napari are restored: an inspection does
not change positions.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tomolab import particles, volumes
from tomolab.averaging.half_maps import Average
from tomolab.conventions import POSITION
from tomolab.inspection.model import Inspection
from tomolab.inspection.run_contents import StoredTomograms
from tomolab.io.volumes.tomogram import of
from tomolab.ui import style, surfaces
from tomolab.ui.napari import picks, viewer
from tomolab.volumes import Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Points, Surface

VERTICES = 500_000
"""Maximum number of vertices of all copies of one average, for fast display; maps of many particles are resampled."""

CHOSEN = 0.6
"""Opacity of the fill of a selected particle."""
MARK = "tomolab"
"""Key in the metadata of the layers of an inspection; its value is the run folder."""


class Link:
    """Connection of a viewer and an inspection; `link` creates it.

    Parameters
    ----------
    viewer
        Viewer of napari.
    inspection
        What to show.
    """

    def __init__(self, viewer: "ViewerModel", inspection: Inspection) -> None:
        self.viewer, self.inspection = viewer, inspection
        self.tomogram = ""
        """Name of the shown tomogram."""
        self.image: Image | None = None
        self.points: Points | None = None
        self.surfaces: dict[str, Surface] = {}
        """Surface layers by the name of the average."""
        self._copies: dict[str, tuple[np.ndarray, bool]] = {}
        self._table, self._rows = pd.DataFrame(), np.empty(0, dtype=np.intp)
        self._listener: Callable[[set[str]], Any] = self._update
        if hasattr(viewer, "window"):
            from tomolab.ui.napari import threads

            self._listener = threads.in_window(self._update)
        self._held = self._closed = False
        viewer.mouse_drag_callbacks.append(self._press)
        inspection.changed.connect(self._listener)

    def __repr__(self) -> str:
        return f"Link({self.tomogram}, {len(self._rows):,} particles, {len(self.surfaces)} averages)"

    def show(self, tomogram: str) -> None:
        """Show a tomogram with its particles and averages, instead of the one before.

        Raises
        ------
        ValueError
            If no particle lies in such a tomogram.
        """
        if tomogram not in self.inspection.named:
            raise ValueError(f"no particle lies in {tomogram!r}; they lie in {', '.join(self.inspection.named)}")
        self._clear()
        self.tomogram, session = tomogram, self.inspection.session
        self._rows = np.flatnonzero(session.particles["tomogram"].to_numpy() == tomogram)
        self._table = session.particles.iloc[self._rows].reset_index(drop=True)
        volume = self.inspection.tomograms.get(tomogram)
        self.image = None if volume is None else viewer.density(self.viewer, volume, metadata={picks.PLACE: self._place_of()})
        self.points = viewer.spheres(self.viewer, self._features(), diameter=self.inspection.diameter, inks=self._inks())
        self.points.events.mode.connect(self._arm)
        self.points.events.data.connect(self._edited)
        self.points.selected_data.events.items_changed.connect(self._picked)
        self._mark(self.image, self.points)
        self._arm()
        self._update({"filters", "selected", "averages"})
        self.viewer.layers.selection.active = self.points
        if self.image is not None:
            self.viewer.dims.set_point(0, self.image.extent.world[:, 0].mean())

    def go(self, particle: int) -> None:
        """Show the slice of a particle, in its tomogram, with the particle in the middle."""
        row = self.inspection.session.particles.iloc[self.inspection.session.rows([particle])[0]]
        if row["tomogram"] != self.tomogram:
            self.show(str(row["tomogram"]))
        place = tuple(float(one) for one in row[POSITION])
        self.viewer.dims.set_point(0, place[0])
        self.viewer.scene.camera.center = place

    def map(self, on: bool) -> None:
        """Show the averages at their particles in 3-D with one slice of the tomogram (on), or the slices (off)."""
        if on and self.image is not None:
            viewer.plane(self.viewer)
        self.viewer.dims.ndisplay = 3 if on else 2
        if self.image is not None and not on:
            self.image.depiction = "volume"
        if self.points is not None:
            self.points.visible = not on

    def leave(self) -> None:
        """End the link, and keep its layers in the viewer."""
        if not self._closed:
            self._closed = True
            self.inspection.changed.disconnect(self._listener)
            self.viewer.mouse_drag_callbacks.remove(self._press)

    def close(self) -> None:
        """End the link, and remove its layers from the viewer."""
        self.leave()
        self._clear()

    # From the inspection to the viewer

    def _update(self, changed: set[str]) -> None:
        if self._closed or self.points is None:
            return
        session = self.inspection.session
        self._colour(self.points, changed)
        if changed & {"labels", "selected"}:
            rows = set(np.flatnonzero(session.selected[self._rows]).tolist())
            if rows != self.points.selected_data:
                self.points.selected_data = rows
        if changed & {"averages", "labels", "clusters", "filters"}:
            self._place()
        if "clusters" in changed:
            for name, layer in self.surfaces.items():
                viewer.paint(layer, style.lighter(self._ink(self.inspection.averages[name]), 0.2))

    def _colour(self, points: "Points", changed: set[str]) -> None:
        """Update colours, features and visibility of the points."""
        if changed & {"labels", "clusters", "colours"}:
            points.border_color = self._inks()
        if changed & {"labels", "clusters", "selected", "colours"}:
            points.face_color = self._faces()
        if "labels" in changed:
            points.features = self._features()
        if changed & {"labels", "clusters", "filters"}:
            points.shown = self.inspection.session.visible[self._rows]

    def _place_of(self) -> picks.Place:
        """Where picks in the shown tomogram belong."""
        work = self.inspection
        stored = work.tomograms
        headers = stored.headers if isinstance(stored, StoredTomograms) else {name: of(one) for name, one in stored.items()}
        folder = Path.cwd() if work.folder is None else work.folder / picks.FOLDER
        return picks.place(self.tomogram, folder, headers, table=work.session.particles)

    def _features(self) -> pd.DataFrame:
        """Table of the shown particles with their present clusters."""
        session = self.inspection.session
        labels = session.labels.to_numpy()[self._rows]
        names = {-1: "none"} | {number: session.title(number) for number in session.clusters}
        return self._table.assign(cluster=labels, cluster_name=pd.Series(labels).map(names).to_numpy())

    def _inks(self) -> np.ndarray:
        return style.lighten(style.particle_inks(self.inspection.session, self.inspection.colour_by)[self._rows], 0.2)

    def _faces(self) -> np.ndarray:
        """Fill colours of the particles; selected ones are more opaque, since napari outlines all of them in one colour."""
        chosen = self.inspection.session.selected[self._rows, None]
        return np.where(chosen, self._inks() * [1, 1, 1, CHOSEN], viewer.faces(self._inks()))

    def _place(self) -> None:
        """Show each average at its visible particles; a new one hides earlier ones of the same particles."""
        visible = self.inspection.session.ids[self.inspection.session.visible]
        for name in self.surfaces.keys() - self.inspection.averages.keys():
            self._remove(name)
            del self._copies[name]
        for name, average in self.inspection.averages.items():
            here = average.particles[average.particles["tomogram"] == self.tomogram]
            table = here[here["particle_id"].isin(visible)]
            ids = table["particle_id"].to_numpy()
            before, on = self._copies.get(name, (np.empty(0, np.int64), True))
            if np.array_equal(ids, before):
                continue
            on = self._remove(name) if name in self.surfaces else on
            self._copies[name] = ids, on
            if len(ids):
                volume = _sparing(average.volume, len(ids))
                (layer,) = viewer.averages(self.viewer, {name: volume}, at={name: table}, colours={name: self._ink(average)})
                layer.visible = on
                for other, earlier in () if len(before) else self.surfaces.items():
                    if np.isin(self.inspection.averages[other].particles["particle_id"], ids).any():
                        earlier.visible = False
                self.surfaces[name] = layer
                self._mark(layer)
                self.viewer.layers.selection.active = self.points

    def _remove(self, name: str) -> bool:
        """Remove the surfaces of an average; return whether they were visible."""
        layer = self.surfaces.pop(name)
        if layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
        return layer.visible

    def _ink(self, average: Average) -> str:
        cluster = average.record.get("cluster")
        palette = style.inks(self.inspection.session.clusters)
        return palette.get(-1 if cluster is None else int(cluster), style.FAINT)

    # From the viewer to the inspection

    def _picked(self, *_: Any) -> None:
        """Copy the selection of the layer to the session."""
        if self._held or self._closed or self.points is None:
            return
        session = self.inspection.session
        here = np.zeros(len(self._rows), dtype=bool)
        here[list(self.points.selected_data)] = True
        now = session.selected
        here &= session.visible[self._rows] | now[self._rows]
        wanted = now.copy()
        wanted[self._rows] = here
        if (wanted != now).any():
            session.select(session.ids[wanted], "napari")
        else:
            self._update({"selected"})

    def _press(self, *_: Any) -> None:
        # Napari clears the selection when the button goes down and sets it when it comes up.
        self._held = self.points is not None and self.viewer.layers.selection.active is self.points

    def _release(self, _: "Points", event: Any) -> Iterator[None]:
        yield
        while event.type == "mouse_move":
            yield
        self._held = False
        self._picked()

    def _arm(self, *_: Any) -> None:
        """Move the mouse callback to the end, after the tool of the layer, since napari appends a new tool."""
        assert self.points is not None
        callbacks = self.points.mouse_drag_callbacks
        if self._release in callbacks:
            callbacks.remove(self._release)
        callbacks.append(self._release)

    def _edited(self, event: Any) -> None:
        """Restore particles that were moved, added or deleted."""
        if self.points is None or event.source is not self.points:
            return
        if str(event.action) in ("adding", "removing", "changing"):
            self._held = True
            return
        layer = self.points
        with layer.events.data.blocker():
            layer.data = particles.positions(self._table)
        layer.features, layer.size = self._features(), self.inspection.diameter
        layer.border_color, layer.face_color = self._inks(), self._faces()
        layer.border_width = viewer.BORDER
        self._update({"filters", "selected"})
        self._held = False
        self.viewer.status = "Particles stay where they are: an inspection neither moves nor deletes them"

    def _mark(self, *layers: "Image | Points | Surface | None") -> None:
        for layer in layers:
            if layer is not None:
                layer.metadata[MARK] = str(self.inspection.folder or "")

    def _clear(self) -> None:
        layers = [self.image, self.points, *self.surfaces.values()]
        self.image = self.points = None
        self.surfaces, self._copies = {}, {}
        for layer in layers:
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)


def _sparing(volume: Volume, copies: int) -> Volume:
    """The map, resampled to larger voxels if the copies of its isosurface would have too many vertices."""
    vertices = len(surfaces.mesh(volume)[0]) * copies
    # The number of vertices falls with the square of the voxel size.
    coarser = np.sqrt(vertices / VERTICES)
    return volume if coarser <= 1 else volumes.resample(volume, volume.voxel_size * min(coarser, volume.shape[0] / 8))


def link(view: "ViewerModel", inspection: Inspection, *, tomogram: str | None = None) -> Link:
    """Show an inspection in a viewer; each follows the changes of the other.

    Parameters
    ----------
    view
        From `viewer.open` or `viewer.model`, or any other of napari.
    inspection
        What to show.
    tomogram
        Its name; by default the first with an image, or else the first.

    Raises
    ------
    ValueError
        If no particle lies in such a tomogram.
    """
    first = next(iter([*(name for name in inspection.named if name in inspection.tomograms), *inspection.named]))
    name = first if tomogram is None else tomogram
    if name not in inspection.named:
        raise ValueError(f"no particle lies in {name!r}; they lie in {', '.join(inspection.named)}")
    connection = Link(view, inspection)
    connection.show(name)
    return connection
