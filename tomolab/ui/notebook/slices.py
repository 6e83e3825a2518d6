"""Takes an inspection, shows slices of its tomograms with the particles that they cut in a notebook; a lasso selects them.

>>> view = Section(inspection)
>>> view                                    # shows in a notebook; a slider moves the slice
>>> view.look(particle_id)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
from ipywidgets import Dropdown, FloatRangeSlider, FloatSlider, HBox, Layout, ToggleButtons, VBox
from matplotlib.path import Path as Outline
from traitlets import Bytes, Float, Int, List

from tomolab import particles
from tomolab.inspection.model import Inspection
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.ui import images, style
from tomolab.ui.view_figure import ACROSS
from tomolab.volumes import Volume


class Slice(anywidget.AnyWidget):  # type: ignore[misc]
    """The canvas: a picture with circles; it sends lassos and clicks in voxels of the slice."""

    _esm = Path(__file__).with_name("slices.js")
    height = Int(430).tag(sync=True)
    picture = Bytes(b"").tag(sync=True)
    size = List([1, 1]).tag(sync=True)
    voxel_size = Float(1.0).tag(sync=True)
    marks = Bytes(b"").tag(sync=True)
    inks = Bytes(b"").tag(sync=True)


class Section(VBox):  # type: ignore[misc]
    """A slice of a tomogram, and the particles of an inspection as the circles in which it cuts them.

    x points right and y down; in slices across y and x, z points down. The picture is the mean over a thickness, a quarter of a
    particle's diameter by default. Hidden clusters and particles outside of the filters are not drawn. `height` is in pixels;
    `hovered` is called with the id of a particle when the mouse comes to it. Raises ValueError if there is no tomogram.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        height: int = 430,
        hovered: Callable[[int], Any] = lambda _: None,
        say: Callable[[str], Any] = lambda _: None,
    ) -> None:
        if not inspection.tomograms:
            raise ValueError("there is no tomogram to show")
        self.inspection, self.session, self.hovered, self.say = inspection, inspection.session, hovered, say
        self._places = particles.positions(self.session.particles)
        self._names = self.session.particles["tomogram"].to_numpy()
        self._greys: dict[tuple, dict[str, float]] = {}
        names = list(inspection.tomograms)
        self.tomogram = Dropdown(
            options=names, description="tomogram", style=style.LABEL, layout=Layout(width="auto", max_width="320px")
        )
        self.tomogram.layout.display = None if len(inspection.tomograms) > 1 else "none"
        self.axis = ToggleButtons(options=list("zyx"), style={"button_width": "28px"}, layout=Layout(flex="0 0 auto"))
        self.axis.tooltips = [f"slices across {axis}" for axis in "zyx"]
        wide = Layout(flex="1 1 230px", width="auto", min_width="0")
        self.at = FloatSlider(readout_format=".0f", description="at (Å)", style=style.LABEL, layout=wide)
        self.thickness = FloatSlider(
            value=inspection.diameter / 4,
            min=0,
            max=2 * inspection.diameter,
            step=inspection.diameter / 40,
            description="thickness (Å)",
            readout_format=".0f",
            style=style.LABEL,
            layout=wide,
            tooltip="The picture is the mean over this length, of one slice at least",
        )
        self.contrast = FloatRangeSlider(
            value=(1.0, 99.8),
            min=0,
            max=100,
            step=0.2,
            description="contrast (%)",
            readout_format=".1f",
            style=style.LABEL,
            layout=wide,
            tooltip="Shares of the voxels that are darker than black and than white in the picture",
        )
        self.slice = Slice(height=height)
        self.slice.add_class("tomolab-slice")
        for control in (self.tomogram, self.axis):
            control.observe(lambda _: self._try(self._turn), "value")
        for control in (self.at, self.thickness, self.contrast):
            control.observe(lambda _: self._try(self._move), "value")
        self.slice.on_msg(self._receive)
        inspection.changed.connect(self._follow)
        rows = ([self.tomogram, self.axis, self.at], [self.thickness, self.contrast])
        super().__init__([self.slice, *(HBox(row, layout=Layout(flex_flow="row wrap")) for row in rows)])
        self._turn()

    @property
    def header(self) -> Volume | Tomogram:
        """The tomogram on the screen, for its shape and voxel size."""
        return self.inspection.headers[self.tomogram.value]

    def _volume(self) -> Volume | Tomogram:
        """The file of the tomogram where a slice is one block of it, else the whole tomogram in memory."""
        header = self.header
        mapped = isinstance(header, Volume) or not (max(header.chunks) > 1 or header.name.endswith((".gz", ".bz2")))
        return header if mapped and self._number == 0 else self.inspection.tomograms[self.tomogram.value]

    @property
    def rows(self) -> np.ndarray:
        """Rows of the visible particles that the slice cuts."""
        off = np.abs(self._places[:, self._number] - self.at.value)
        inside = (off < self.inspection.diameter / 2) & (self._names == self.tomogram.value)
        return np.flatnonzero(inside & self.session.visible)

    @property
    def shown(self) -> dict[str, Any]:
        """The slice as options of `view_figure.draw`."""
        looks = {"thickness": self.thickness.value, "contrast": self.contrast.value}
        return {"tomogram": self.tomogram.value, "axis": self._number, "at": self.at.value, **looks}

    def look(self, particle_id: int) -> None:
        """Move to the slice through a particle, in its tomogram if there is an image of it.

        Raises
        ------
        ValueError
            If the particle is unknown.
        """
        row = np.flatnonzero(self.session.ids == particle_id)
        if not len(row):
            raise ValueError(f"there is no particle {particle_id}")
        if self._names[row[0]] in self.inspection.tomograms:
            self.tomogram.value = self._names[row[0]]
            self.at.value = float(self._places[row[0], self._number])

    @property
    def _number(self) -> int:
        return "zyx".index(self.axis.value)

    def _turn(self) -> None:
        """Show another tomogram or axis, from its middle."""
        voxel, last = self.header.voxel_size, self.header.shape[self._number] - 1
        self.at.max, self.at.step = last * voxel, voxel
        middle = (last + 1) // 2 * voxel
        if self.at.value == middle:
            self._move()
        self.at.value = middle

    def _try(self, change: Callable[[], None]) -> None:
        """Show another slice; a black one and the reason if it cannot be read."""
        try:
            change()
        except (ValueError, OSError) as error:
            self.slice.picture = images.png(np.zeros((1, 1)), vmin=0, vmax=1)
            self.say(str(error))

    def _move(self) -> None:
        """Show another slice."""
        cut = images.slab(self._volume(), self._number, at=self.at.value, thickness=self.thickness.value)
        with self.slice.hold_sync():
            self.slice.picture, self.slice.size = images.png(cut, **self._grey()), list(cut.shape)
            self.slice.voxel_size = self.header.voxel_size
            self._mark()

    def _grey(self) -> dict[str, float]:
        """Contrast limits of the tomogram, from the slab in its middle, so that they are the same in all slices."""
        key = self.tomogram.value, self.thickness.value, self.contrast.value
        if key not in self._greys:
            middle = images.slab(self._volume(), 0, at=self.header.extent[0] / 2, thickness=self.thickness.value)
            self._greys = {key: images.limits(middle, *self.contrast.value)}
        return self._greys[key]

    def _mark(self) -> None:
        """Draw the circles of the particles in their colours."""
        rows = self.rows
        away = self._places[rows, self._number] - self.at.value
        radii = np.sqrt((self.inspection.diameter / 2) ** 2 - away**2)
        marks = np.column_stack([self._across(rows), radii / self.header.voxel_size]).astype(np.float32)
        colours = style.particle_inks(self.session, self.inspection.colour_by)[rows]
        inks = np.round(255 * style.lighten(colours, 0.2)).astype(np.uint8)
        inks[:, 3] = self.session.selected[rows]
        self.slice.marks, self.slice.inks = marks.tobytes(), inks.tobytes()

    def _across(self, rows: np.ndarray) -> np.ndarray:
        """Positions of particles in the picture (n, 2), right and down, in voxels from its corner."""
        down, right = ACROSS[self._number]
        # The centre of the first voxel lies half a voxel from the corner.
        return self._places[rows][:, [right, down]] / self.header.voxel_size + 0.5

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "selected", "clusters", "filters", "colours"}:
            with self.slice.hold_sync():
                self._mark()

    def _receive(self, _: Any, message: dict[str, Any], __: Any) -> None:
        if message["type"] == "step":
            self.at.value += message["by"] * self.header.voxel_size
            return
        rows = self.rows
        if message["type"] == "hover":
            if message["index"] < len(rows):
                self.hovered(int(self.session.ids[rows[message["index"]]]))
            return
        at = self._across(rows)
        drawn = np.asarray(message["at"], dtype=float).reshape(-1, 2)
        if message["type"] == "lasso":
            inside = Outline(drawn).contains_points(at) if len(at) and len(drawn) > 2 else np.zeros(len(at), bool)
        else:
            away = np.hypot(*(at - drawn[0]).T)
            inside = (away == away.min(initial=np.inf)) & (away < self.inspection.diameter / 2 / self.header.voxel_size)
        if inside.any() or message["type"] == "lasso":
            self.session.select(self.session.ids[rows[inside]], f"{message['type']} in the tomogram", how=message["how"])
