"""Takes points of particles, shows up to millions of them in a notebook, gives those inside a lasso as a `Selection`.

>>> view = lasso(points, colour=labels)
>>> view                                    # shows in a notebook; draw around points
>>> ribosomes = view.selection("ribosomes", "lasso in t-SNE of run 7")
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgba

from tomolab import particles as tables
from tomolab.inspection.selection import Selection
from tomolab.ui import require, style

if TYPE_CHECKING:
    from jscatter import Scatter


LIFTED = "#333333"
"""Background of what lies over the map in a dark theme."""
SHADES = 255
"""Number of colours of a range of numbers."""


class Lasso:
    """Scatter plot of particles with a selection of particle ids; `lasso` creates it.

    Parameters
    ----------
    scatter
        The jupyter-scatter view; row i of it is ``ids[i]``.
    ids
        Particle ids (n,), unique.
    """

    def __init__(self, scatter: "Scatter", ids: np.ndarray) -> None:
        self.scatter = scatter
        self._index = pd.Index(np.asarray(ids, dtype=np.int64))

    @property
    def widget(self) -> Any:
        """The ipywidgets widget."""
        return self.scatter.widget

    @property
    def ids(self) -> np.ndarray:
        """Ids of the selected particles, sorted, int64; ValueError as `held`."""
        return np.sort(self._index.to_numpy()[self.held])

    @property
    def held(self) -> np.ndarray:
        """Whether each particle is selected, (n,) in the order of the scatter; ValueError if the browser reports other rows."""
        reported = self.widget.selection
        rows = np.asarray([] if reported is None else reported, dtype=np.int64)
        if len(rows) and rows.max() >= len(self._index):
            raise ValueError(f"the scatter reports row {rows.max()} as selected, but shows {len(self._index)} particles")
        # A mask, for np.unique takes a quarter of a second for half a million rows.
        held = np.zeros(len(self._index), dtype=bool)
        held[rows] = True
        return held

    def selection(self, name: str, reason: str) -> Selection:
        """The selected particles as a `Selection` of this name and reason; ValueError if nothing is selected."""
        ids = self.ids
        if len(ids) == 0:
            raise ValueError("nothing is selected: press the lasso button beside the scatter and draw around points")
        return Selection(name, ids, reason)

    def select(self, ids: Iterable[int]) -> None:
        """Select particles by their ids, a mask or a `Selection`; ValueError if one is not in the scatter."""
        wanted = tables.as_ids(ids, self._index.to_numpy())
        rows = self._index.get_indexer(wanted)
        unknown = wanted[rows < 0]
        if len(unknown):
            raise ValueError(f"{len(unknown)} of {len(wanted)} particles are not shown here, such as {unknown[:5].tolist()}")
        chosen = np.zeros(len(self._index), dtype=bool)
        chosen[rows] = True
        self.choose(chosen)

    def choose(self, chosen: np.ndarray) -> None:
        """Select by a mask, (n,) in the order of the scatter, unless it is the selection already."""
        if not np.array_equal(chosen, self.held):
            self.scatter.selection(np.flatnonzero(chosen))

    def place(self, points: pd.DataFrame) -> None:
        """Move the particles to points (``particle_id``, ``x``, ``y``); colours, selection and hidden particles stay.

        ValueError if a particle has no position.
        """
        placed = points.set_index("particle_id").reindex(self._index)[["x", "y"]]
        if placed.isna().to_numpy().any():
            raise ValueError(f"{int(placed.isna().any(axis=1).sum())} of {len(placed)} particles have no position")
        held, hidden = self.held, self.widget.filter
        x, y = (placed[axis].to_numpy(dtype=float) for axis in ("x", "y"))
        self.scatter.xy(x, y, x_scale=_domain(placed["x"]), y_scale=_domain(placed["y"]))
        self.scatter.filter(hidden)
        self.choose(held)

    def show_only(self, shown: np.ndarray | None) -> None:
        """Hide all particles but the shown ones, (n,) in the order of the scatter; None shows all."""
        self.scatter.filter(None if shown is None or shown.all() else np.flatnonzero(shown))

    def recolour(self, values: pd.Categorical, inks: Sequence[str], *, name: str = "category") -> None:
        """Colour particles by category.

        Parameters
        ----------
        values
            Category of each particle, (n,) in the order of the scatter; missing ones are grey.
        inks
            Colour of each category.
        name
            Title of the legend.

        Raises
        ------
        ValueError
            If there are not as many values as particles, or colours as categories.
        """
        if len(values) != len(self._index) or len(inks) != len(values.categories):
            given = f"{len(values)} values for {len(self._index)} particles"
            raise ValueError(f"{given}, and {len(inks)} colours for {len(values.categories)} categories")
        values, inks = style.with_missing(values, inks)
        # The scatter counts only categories that occur: unused ones would shift the colours.
        used = values.remove_unused_categories()
        palette = dict(zip(values.categories, inks, strict=True))
        shown = [palette[category] for category in used.categories]
        # A single colour would give way to that of a selection.
        one = {"selected": shown[0], "hover": shown[0]} if len(shown) == 1 else {}
        self._colour(name, by=used, map=shown, **one)

    def shade(self, values: np.ndarray, name: str) -> None:
        """Colour particles by a number, (n,) in the order of the scatter, from dark to bright, with a legend of this name.

        Those without a number are grey.
        """
        numbers, how = _shaded(pd.Series(values))
        self._colour(name, by=numbers, **how)

    def _colour(self, name: str, **how: Any) -> None:
        # In one message, so that the browser draws no state between.
        with self.widget.hold_sync():
            self.scatter.color(**how)
            self.scatter.update_widget("color_title", name)
            # The scatter does not send new colours by itself if another array gave the old ones.
            for trait in ("prevent_filter_reset", "non_spatial_points_update"):
                self.scatter.update_widget(trait, True)
            self.scatter.update_widget("points", self.scatter.get_point_list())

    def on_change(self, function: Callable[[np.ndarray], None]) -> None:
        """Call `function` with the mask `held` after every change of the selection."""
        self.widget.observe(lambda _: function(self.held), names="selection")

    def on_hover(self, function: Callable[[int], None]) -> None:
        """Call `function` with the id of a particle whenever the mouse comes to it."""

        def follow(change: Any) -> None:
            if change["new"] is not None and 0 <= change["new"] < len(self._index):
                function(int(self._index[change["new"]]))

        self.widget.observe(follow, names="hovering")

    def draw_points(self, *, size: float | None = None, opacity: float | None = None) -> None:
        """Draw the points in a size in pixels and an opacity; by default as many as there are need, and by their density."""
        self.scatter.size(default=_size(len(self._index)) if size is None else size)
        self.scatter.opacity(by="density") if opacity is None else self.scatter.opacity(by=None, default=opacity)

    def dress(self, *, dark: bool, legend: str = "") -> None:
        """Draw on a dark or a white background, with a legend of the colours under a title, or without it."""
        ink, paper = ("white", style.DARK) if dark else ("black", "white")
        # Not by `background` of the scatter, which shows hidden axes and the legend.
        self.widget.background_color, self.widget.reticle_color = to_rgba(paper), to_rgba(ink, 0.2)
        self.widget.tooltip_color = to_rgba(LIFTED if dark else "white")
        if legend:
            self.widget.legend_color = to_rgba(ink)
        self.scatter.legend(bool(legend))
        if legend:
            shown = self.widget.legend_encoding
            self.widget.legend_encoding = {channel: one | {"variable": legend} for channel, one in shown.items()}

    def show(self) -> Any:
        """Give the scatter with its buttons, for display."""
        return self.scatter.show()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.show())

    def __repr__(self) -> str:
        return f"Lasso({len(self._index):,} particles, {len(self.ids):,} selected)"


def lasso(
    points: pd.DataFrame, *, colour: pd.Series | None = None, particles: pd.DataFrame | None = None, height: int = 480
) -> Lasso:
    """Show particles in two dimensions, with a lasso to select them.

    Parameters
    ----------
    points
        Columns ``particle_id`` (unique), ``x``, ``y`` (`layouts.flat`).
    colour
        A category (text or whole number) or a number (float) per particle, indexed by particle id. Missing ones (None, NaN, NA)
        are grey.
    particles
        Particle table; its ``label``, ``tomogram`` and ``score`` columns, where present, show under the mouse.
    height
        Of the view, in pixels.

    Raises
    ------
    ValueError
        If a column is missing, an id is repeated, a position is not finite, or a particle has no colour or no row in the
        particle table.
    """
    style.require(points, ["particle_id", "x", "y"], "a scatter")
    ids = points["particle_id"].to_numpy()
    repeated = pd.Index(ids).duplicated().sum()
    if repeated:
        raise ValueError(f"each particle must be one point, but {repeated} ids are repeated")
    bad = ids[~np.isfinite(points[["x", "y"]].to_numpy(dtype=float)).all(axis=1)]
    if len(bad):
        raise ValueError(f"the positions of {len(bad)} particles are not finite, such as particles {bad[:5].tolist()}")
    jscatter = require("jscatter", by="a scatter")
    data = points[["x", "y"]].reset_index(drop=True).assign(particle=ids)
    shown = ["particle"]
    if particles is not None:
        rows = particles.set_index("particle_id")
        for column in [name for name in ("label", "tomogram", "score") if name in rows]:
            values = style.aligned(rows[column], ids, name=column)
            # As precise as one reads it under the mouse.
            data[column] = (values.round(3) if pd.api.types.is_float_dtype(values) else values).to_numpy()
            shown.append(column)
    how: dict[str, Any] = {"default": style.OKABE_ITO[0]}
    if colour is not None:
        name = str(colour.name or "colour")
        data[name], how = _encoded(style.aligned(colour, ids, name="colour"))
        how["by"], shown = name, [*(column for column in shown if column != name), name]
    # use_index=False: selections are row numbers, which are translated and checked here.
    view = jscatter.Scatter(data=data, x="x", y="y", data_use_index=False, height=height)
    view.x(scale=_domain(data["x"])).y(scale=_domain(data["y"]))
    view.size(default=_size(len(ids)))
    view.color(**how).legend(colour is not None).axes(False).background("white")
    view.tooltip(enable=True, properties=shown, histograms=False)
    # An animation would mix the colours of two states, and ignore changes until its end. Esc would deselect from anywhere.
    view.options(transition_points=False, regl_scatterplot_options={"deselectOnEscape": False})
    return Lasso(view, ids)


def _size(count: int) -> float:
    """Size of a point in pixels: few are drawn large enough to be hit, many small enough to leave gaps."""
    return float(np.clip(120 / np.sqrt(max(1, count)), 2, 8))


def _domain(values: pd.Series) -> tuple[float, float]:
    """Range of an axis with room at both ends, so that no point is cut by the edge of the view."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _encoded(values: pd.Series) -> tuple[Any, dict[str, Any]]:
    """Give values as a column of the scatter, and how to colour them."""
    if not style.is_categorical(values):
        return _shaded(values)
    categories, palette = style.to_categorical(values)
    return categories, {"map": palette}


def _shaded(values: pd.Series) -> tuple[np.ndarray, dict[str, Any]]:
    """Give numbers as the scatter takes them, and how to colour them; others than finite come first, in grey."""
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    finite = np.isfinite(numbers)
    low, high = (float(numbers[finite].min()), float(numbers[finite].max())) if finite.any() else (0.0, 1.0)
    high = high if high > low else low + 1.0
    if finite.all():
        return numbers, {"map": "viridis", "norm": (low, high)}
    # The scatter divides the range into as many steps as there are colours; the first is for missing values.
    inks = [to_hex(ink) for ink in matplotlib.colormaps["viridis"](np.linspace(0, 1, SHADES))]
    below = low - (high - low) / (SHADES - 1)
    return np.where(finite, numbers, below), {"map": [style.LACKING, *inks], "norm": (below, high)}
