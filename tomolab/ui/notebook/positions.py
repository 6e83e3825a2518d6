"""Takes an inspection, shows the particles of one tomogram at their positions in 3-D in a notebook, coloured as in the map.

The browser draws them (k3d), so the server needs no display. No tomogram is read.

>>> panel = Positions(inspection)
>>> panel.tomogram.value = "TS_03"
>>> panel.look(particle_id)                  # its tomogram
"""

import itertools

import numpy as np
from ipywidgets import HTML, Dropdown, FloatSlider, HBox, Layout, VBox

from tomolab import particles
from tomolab.inspection.history import counted
from tomolab.inspection.model import Inspection
from tomolab.ui import style
from tomolab.ui.notebook.structures import View, packed

HEIGHT = 360
"""Of the view, in pixels."""
PALE = 0.8
"""Share of the background in the colour of a particle that is not selected, while others are."""


class Positions(VBox):  # type: ignore[misc]
    """The visible particles of one tomogram as balls; while some are selected, the others are pale, as in the map.

    The view is that of napari: x points right, y down, z away.
    """

    def __init__(self, inspection: Inspection) -> None:
        self.inspection, self.session = inspection, inspection.session
        self.dark, self.active, self._seen = False, False, ""
        self._rows = np.empty(0, dtype=np.int64)
        self._names = self.session.particles["tomogram"].to_numpy()
        self._places = particles.positions(self.session.particles)[:, ::-1].astype(np.float32)
        self.tomogram = Dropdown(
            options=inspection.named, description="tomogram", style=style.LABEL, layout=Layout(width="auto", max_width="320px")
        )
        diameter = inspection.diameter
        looks = {
            "min": diameter / 10,
            "max": 2 * diameter,
            "step": diameter / 40,
            "readout_format": ".0f",
            "style": style.LABEL,
        }
        self.size = FloatSlider(value=diameter, description="diameter (Å)", tooltip="Diameter of the balls", **looks)
        self.size.layout = Layout(flex="1 1 230px", min_width="0", max_width="420px")
        self.text, self.view = HTML(), View("tomolab-positions", HEIGHT)
        self.tomogram.observe(lambda _: self._draw(), "value")
        inspection.changed.connect(self._follow)
        row = Layout(flex_flow="row wrap", align_items="center")
        super().__init__([HBox([self.tomogram, self.size, self.text], layout=row), self.view])

    def show(self) -> None:
        """Draw from now on, until `active` is False: a million particles take time, also where nobody sees them."""
        self.view.show(dark=self.dark)
        self.active = True
        self._draw()

    def look(self, particle_id: int) -> None:
        """Show the tomogram of a particle."""
        self.tomogram.value = str(self._names[self.session.rows([particle_id])[0]])

    def _follow(self, changed: set[str]) -> None:
        if changed & {"labels", "clusters", "filters", "selected", "colours"}:
            self._draw()

    def _draw(self) -> None:
        if not self.active:
            return
        rows = np.flatnonzero((self._names == self.tomogram.value) & self.session.visible)
        if self._seen == self.tomogram.value and np.array_equal(rows, self._rows):
            self.view.objects["points"][0].colors = self._inks()
        else:
            self._rows = rows
            points = self.view.k3d.points(self._places[rows], colors=self._inks(), point_size=self.size.value, shader="3d")
            self.view.put("points", points, (self.size, "point_size"))
        if self._seen != self.tomogram.value:
            self._frame()
        self.view.objects["box"][0].color = packed(style.FAINT_ON_DARK if self.dark else style.FAINT)
        chosen, count = int(self.session.selected[rows].sum()), counted(len(rows))
        size = " × ".join(f"{edge:,.0f}" for edge in np.ptp(self._bounds(), axis=0))
        self.text.value = style.span(f"{chosen:,} of {count} selected here · box {size} Å (x, y, z)", style.QUIET_TEXT)

    def _frame(self) -> None:
        """Draw the edges of the tomogram, and see it whole, from low z with y down."""
        self._seen, bounds = self.tomogram.value, self._bounds()
        corners = np.array(list(itertools.product((0, 1), repeat=3)))
        edges = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(corners[a] - corners[b]).sum() == 1]
        self.view.put("box", self.view.k3d.lines(bounds[corners, [0, 1, 2]], edges, indices_type="segment", shader="simple"))
        target, size = bounds.mean(axis=0), float(np.linalg.norm(np.ptp(bounds, axis=0)))
        position = target + size * np.array([-0.25, -0.45, -0.86])
        self.view.plot.camera = [*position.tolist(), *target.tolist(), 0.0, -1.0, 0.0]

    def _bounds(self) -> np.ndarray:
        """Lowest and highest corner (2, 3), xyz in Å, of the tomogram; of its particles where there is no tomogram."""
        header = self.inspection.headers.get(self.tomogram.value)
        if header is not None:
            return (np.array([(0, 0, 0), header.shape[::-1]]) - 0.5).astype(np.float32) * header.voxel_size
        places, half = self._places[self._names == self.tomogram.value], self.inspection.diameter / 2
        return np.array([places.min(axis=0) - half, places.max(axis=0) + half])

    def _inks(self) -> np.ndarray:
        """Colours (n,), uint32, of the particles that are shown."""
        inks = style.particle_inks(self.session, self.inspection.colour_by, dark=self.dark)[self._rows, :3]
        chosen = self.session.selected[self._rows]
        if chosen.any():
            paper = 0.07 if self.dark else 1.0
            inks = np.where(chosen[:, None], inks, PALE * paper + (1 - PALE) * inks)
        return np.round(255 * inks).astype(np.uint32) @ np.array([2**16, 2**8, 1], dtype=np.uint32)
