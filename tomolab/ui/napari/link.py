"""Takes an inspection, shows it in a napari viewer, follows it, and gives it what is selected there.

Works on a window and on a viewer without Qt alike.

>>> work = inspection.open("runs/first")
>>> shown = link(viewer.open(), work)
>>> shown.show("TS_02")                       # another tomogram
>>> shown.map(True)                           # averages at every particle, in 3-D
>>> shown.close()

What is selected in napari stands for the tomogram that is shown: it replaces what was selected there, and what is selected
in other tomograms stays. Hidden particles cannot be chosen, not even by "select all", but ones that are selected and
then hidden stay so until the next selection. A drag of the mouse is one step of the session. Particles that are moved,
added or deleted in napari are put back: where particles are is not for an inspection to change.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tomolab import particles, volumes
from tomolab.averaging.half_maps import Average
from tomolab.inspection.model import Inspection
from tomolab.inspection.session import NONE, Session
from tomolab.ui import style, surfaces
from tomolab.ui.napari import viewer
from tomolab.volumes import Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Points, Surface

VERTICES = 500_000
"""Of all copies of one average: more are neither seen nor turned in a second. Maps of many particles are made coarser."""

CHOSEN = 0.6
"""Opacity of the fill of a selected particle."""
MARK = "tomolab"
"""Key in the metadata of the layers of an inspection, under which its run folder is told."""


class Link:
    """A viewer and an inspection that show the same; made by `link`.

    Parameters
    ----------
    viewer
        Of napari.
    inspection
        What is shown.
    """

    def __init__(self, viewer: "ViewerModel", inspection: Inspection) -> None:
        self.viewer, self.inspection = viewer, inspection
        self.tomogram = ""
        """Name of the one that is shown."""
        self.image: Image | None = None
        self.points: Points | None = None
        self.surfaces: dict[str, Surface] = {}
        """By the name of the average."""
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
        """Show a tomogram, its particles and the averages in it, instead of the one shown before.

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
        self.image = None if volume is None else viewer.density(self.viewer, volume)
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

    def map(self, on: bool) -> None:
        """Show in 3-D the averages where their particles are, with one slice of the tomogram; or the slices again."""
        if on and self.image is not None:
            viewer.plane(self.viewer)
        self.viewer.dims.ndisplay = 3 if on else 2
        if self.image is not None and not on:
            self.image.depiction = "volume"
        if self.points is not None:
            self.points.visible = not on

    def leave(self) -> None:
        """End the link, and leave in the viewer what is shown."""
        if not self._closed:
            self._closed = True
            self.inspection.changed.disconnect(self._listener)
            self.viewer.mouse_drag_callbacks.remove(self._press)

    def close(self) -> None:
        """End the link, and take what it shows out of the viewer."""
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
        if "averages" in changed:
            self._place()
        if "clusters" in changed:
            for name, layer in self.surfaces.items():
                viewer.paint(layer, style.lighter(self._ink(self.inspection.averages[name]), 0.2))

    def _colour(self, points: "Points", changed: set[str]) -> None:
        """Everything about the particles but which of them are selected."""
        if changed & {"labels", "clusters"}:
            points.border_color = self._inks()
        if changed & {"labels", "clusters", "selected"}:
            points.face_color = self._faces()
        if "labels" in changed:
            points.features = self._features()
        if changed & {"labels", "clusters", "filters"}:
            points.shown = self.inspection.session.visible[self._rows]

    def _features(self) -> pd.DataFrame:
        """Table of the particles shown, with their cluster as it is now."""
        session = self.inspection.session
        labels = session.labels.to_numpy()[self._rows]
        names = {-1: "none"} | {number: session.title(number) for number in session.clusters}
        return self._table.assign(cluster=labels, cluster_name=pd.Series(labels).map(names).to_numpy())

    def _inks(self) -> np.ndarray:
        return inks(self.inspection.session, light=0.2)[self._rows]

    def _faces(self) -> np.ndarray:
        """Fill of the particles: of the selected ones stronger, since napari outlines them all in one colour."""
        chosen = self.inspection.session.selected[self._rows, None]
        return np.where(chosen, self._inks() * [1, 1, 1, CHOSEN], viewer.faces(self._inks()))

    def _place(self) -> None:
        """Show the averages that are not shown yet; one hides earlier ones of the same particles."""
        for name, average in self.inspection.averages.items():
            table = average.particles[average.particles["tomogram"] == self.tomogram]
            if name in self.surfaces or not len(table):
                continue
            volume = _sparing(average.volume, len(table))
            ink = self._ink(average)
            (layer,) = viewer.averages(self.viewer, {name: volume}, at={name: table}, colours={name: ink})
            for other, earlier in self.surfaces.items():
                if np.isin(self.inspection.averages[other].particles["particle_id"], table["particle_id"]).any():
                    earlier.visible = False
            self.surfaces[name] = layer
            self._mark(layer)
            self.viewer.layers.selection.active = self.points

    def _ink(self, average: Average) -> str:
        cluster = average.record.get("cluster")
        palette = style.inks(self.inspection.session.clusters)
        return palette.get(-1 if cluster is None else int(cluster), style.FAINT)

    # From the viewer to the inspection

    def _picked(self, *_: Any) -> None:
        """Select in the session what is selected in the layer."""
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
        """Be the last of those that hear of the mouse, after the tool of the layer; a new tool is put last."""
        assert self.points is not None
        callbacks = self.points.mouse_drag_callbacks
        if self._release in callbacks:
            callbacks.remove(self._release)
        callbacks.append(self._release)

    def _edited(self, event: Any) -> None:
        """Put back what was moved, added or deleted."""
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
        self.viewer.status = "Particles stay where they are: an inspection tells them apart, and neither moves nor deletes them"

    def _mark(self, *layers: "Image | Points | Surface | None") -> None:
        for layer in layers:
            if layer is not None:
                layer.metadata[MARK] = str(self.inspection.folder or "")

    def _clear(self) -> None:
        layers = [self.image, self.points, *self.surfaces.values()]
        self.image = self.points = None
        self.surfaces = {}
        for layer in layers:
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)


def inks(session: Session, *, light: float = 0.0) -> np.ndarray:
    """Colour (n, 4) of every particle of a session, that of its cluster.

    Parameters
    ----------
    session
        Of n particles.
    light
        Share of white in the colours, for a dark ground.
    """
    palette = {NONE: style.FAINT} | style.inks(session.clusters)
    light_palette = {number: style.lighter(ink, light) for number, ink in palette.items()}
    return style.painted(session.labels.to_numpy(), light_palette)


def _sparing(volume: Volume, copies: int) -> Volume:
    """The map, coarser if so many copies of its outline would have too many vertices."""
    vertices = len(surfaces.mesh(volume)[0]) * copies
    # The vertices of an outline are as many as the voxels it passes: they go with the square of the voxel size.
    coarser = np.sqrt(vertices / VERTICES)
    return volume if coarser <= 1 else volumes.resample(volume, volume.voxel_size * min(coarser, volume.shape[0] / 8))


def link(view: "ViewerModel", inspection: Inspection, *, tomogram: str | None = None) -> Link:
    """Show an inspection in a viewer, and let either follow the other.

    Parameters
    ----------
    view
        From `viewer.open` or `viewer.model`, or any other of napari.
    inspection
        What to show.
    tomogram
        Its name; by default the first of which there is an image, or else the first.

    Raises
    ------
    ValueError
        If no particle lies in such a tomogram.
    """
    first = next(iter([*(name for name in inspection.named if name in inspection.tomograms), *inspection.named]))
    name = first if tomogram is None else tomogram
    if name not in inspection.named:
        raise ValueError(f"no particle lies in {name!r}; they lie in {', '.join(inspection.named)}")
    made = Link(view, inspection)
    made.show(name)
    return made
