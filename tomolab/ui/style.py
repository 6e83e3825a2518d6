"""Takes values and clusters, gives their colours; holds the settings of all figures and shows figures in a notebook.

>>> dict(zip(classes, colours(len(classes)), strict=True))
"""

import colorsys
import html
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_hex, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from tomolab.conventions import BOX, READ_POSE, SOURCE
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE, Cluster

Options = ParamSpec("Options")
Result = TypeVar("Result")
OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"]
"""Palette for colour blindness (Okabe and Ito 2008), without black."""
MORE = ["#332288", "#882255", "#999933", "#CC6677", "#117733", "#8A6D5B", "#7F7F7F", "#AA4499", "#44AA99", "#A65628"]
MORE += ["#88CCEE", "#DDCC77", "#1B1B1B"]
"""Colours after those, mostly Tol's muted scheme."""
INK, QUIET, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
"""Text; secondary text; lines that should stay behind the data."""
DARK, FAINT_ON_DARK = "#111111", "#4a4a4a"
"""Background of a view in a dark theme; lines and points that should stay behind the data there."""
LABEL = {"description_width": "initial"}
"""Style of a field of a notebook with a label as wide as its text."""
QUIET_TEXT = f"var(--jp-ui-font-color2, {QUIET})"
"""Secondary text of a notebook, readable in light and dark themes."""
ERROR = "#d32f2f"
ERROR_TEXT = f"var(--jp-error-color1, {ERROR})"
"""An error; the same as text of a notebook."""
LACKING = "#bdbdbd"
"""Colour of missing values."""
FEW = 40
"""Maximum number of categories of a column to colour by."""
MISSING = "missing"
"""Category of missing values."""
RC: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.color": INK,
    # A name may contain dollar signs, which are not mathematics.
    "text.parse_math": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "image.interpolation": "nearest",
}
"""Settings of every figure."""
NAMED = "\u200b"
"""Comes before a leading underscore while a figure is drawn: matplotlib leaves such labels out of legends."""


def styled(draw: Callable[Options, Result]) -> Callable[Options, Result]:
    """Decorator: draw the figure with these settings, names as they are written, and leave the user's own unchanged."""

    @wraps(draw)
    def drawn(*arguments: Options.args, **options: Options.kwargs) -> Result:
        with matplotlib.rc_context(RC):
            figure = draw(*arguments, **options)
        if isinstance(figure, Figure):
            for legend in figure.findobj(Legend):
                for text in legend.get_texts():
                    text.set_text(text.get_text().removeprefix(NAMED))
            # Powers of ten are mathematics.
            for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) if axis.get_scale() == "log"):
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                    tick.label1.set_parse_math(True)
                    tick.label2.set_parse_math(True)
        return figure

    return drawn


def label(name: object) -> str:
    """A name as the label of what is drawn."""
    return f"{NAMED}{name}" if str(name).startswith("_") else str(name)


def colours(count: int) -> list[str]:
    """Give `count` different colours; the first 20 are fixed, then hues follow in golden steps.

    A colour does not depend on `count`.
    """
    return [_colour(number) for number in range(count)]


@lru_cache(maxsize=2**16)
def _colour(number: int) -> str:
    chosen = [*OKABE_ITO, *MORE]
    if number < len(chosen):
        return chosen[number]
    # The golden ratio spreads any number of hues evenly; neighbours differ in lightness.
    place = number - len(chosen)
    return to_hex(colorsys.hls_to_rgb(place * 0.618034 % 1, (0.42, 0.66)[place % 2], 0.65))


def span(text: str, ink: str) -> str:
    """Text in a colour, as HTML; markup in the text is escaped."""
    return f"<span style='color:{ink}'>{html.escape(text, quote=False)}</span>"


def plain(text: str) -> str:
    """Text that Qt shows letter by letter: where it could be taken for HTML, as HTML in which markup is escaped.

    Labels and tooltips of Qt take any text that looks like HTML for HTML, and show the files that it names.
    """
    return f"<span style='white-space: pre-wrap'>{html.escape(text, quote=False)}</span>" if set("<&") & set(text) else text


def lighter(colour: str, share: float = 0.35) -> str:
    """Mix a colour with white, a dark one with more, so that it stands out on a grey image."""
    return hexadecimal(lighten(to_rgba_array(colour), share)[0])


def hexadecimal(ink: np.ndarray) -> str:
    """A colour (3 or 4 values, 0 to 1) as "#rrggbb"."""
    return to_hex((float(ink[0]), float(ink[1]), float(ink[2])))


def lighten(inks: np.ndarray, share: float) -> np.ndarray:
    """The same for colours (n, 4), 0 to 1."""
    most = np.maximum(share, 0.75 - inks[:, :3] @ [0.3, 0.59, 0.11])[:, None]
    return np.column_stack([inks[:, :3] * (1 - most) + most, inks[:, 3]])


def categories(values: Iterable) -> dict[Any, str]:
    """Colour of every distinct value, in sorted order, without missing values.

    Whole numbers, such as clusters, have the colours of the inspector: that of the number, or the user's own (attribute
    "colours" of `Session.labels`), and a faint one for -1, no cluster.
    """
    distinct = sorted(pd.Series(values).dropna().unique().tolist(), key=lambda value: (isinstance(value, str), value))
    if all(isinstance(value, int) and value >= NONE for value in distinct):
        return {value: FAINT if value == NONE else _colour(value) for value in distinct} | {
            value: ink for value, ink in getattr(values, "attrs", {}).get("colours", {}).items() if value in distinct
        }
    return dict(zip(distinct, colours(len(distinct)), strict=True))


def to_categorical(values: pd.Series) -> tuple[pd.Categorical, dict[str, str]]:
    """Values as categories of text, and the colour of each category; missing values are a grey category, the last one.

    Parameters
    ----------
    values
        Text, truth values or whole numbers of any dtype, in which None, NaN and NA are missing.
    """
    # As text, so that whole numbers are categories and keep the palette of the figures.
    palette = {str(value): ink for value, ink in categories(values).items()}
    names = values.astype(object).map(str).to_numpy(dtype=object)
    found, inks = with_missing(pd.Categorical(np.where(values.isna(), None, names), categories=list(palette)), palette.values())
    return found, dict(zip(found.categories, inks, strict=True))


def with_missing(values: pd.Categorical, inks: Iterable[str]) -> tuple[pd.Categorical, list[str]]:
    """Values and the colour of each category, with a grey category for missing values if there are any."""
    if not values.isna().any():
        return values, list(inks)
    name = MISSING
    while name in values.categories:
        name = f"({name})"
    codes = np.where(values.codes < 0, len(values.categories), values.codes)
    return pd.Categorical.from_codes(codes, categories=[*values.categories, name]), [*inks, LACKING]


def inks(clusters: Mapping[int, Cluster]) -> dict[int, str]:
    """Colour of every cluster of a session: its own, or that of its number in the palette."""
    return {number: one.colour or _colour(number) for number, one in clusters.items()}


def painted(labels: np.ndarray, palette: Mapping[int, str]) -> np.ndarray:
    """Colour (n, 4), 0 to 1, of every particle by its cluster (n,); the palette has all clusters, also -1 for none."""
    numbers = np.array(sorted(palette))
    inks = to_rgba_array([palette[number] for number in numbers.tolist()])
    return inks[np.searchsorted(numbers, labels)]


def particle_inks(session: Session, column: str, *, dark: bool = False) -> np.ndarray:
    """Colour (n, 4), 0 to 1, of every particle of a session by its cluster or by a column, in all views."""
    if column == "cluster":
        return painted(session.labels.to_numpy(), {NONE: FAINT_ON_DARK if dark else FAINT} | inks(session.clusters))
    return _column_inks(session, column)


@lru_cache(maxsize=1)
def _column_inks(session: Session, column: str) -> np.ndarray:
    values = session.particles[column].reset_index(drop=True)
    if not varies(values):
        found, palette = to_categorical(values)
        return to_rgba_array(list(palette.values()))[found.codes]
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    low, high = limits(numbers)
    shares = (np.where(np.isfinite(numbers), numbers, low) - low) / (high - low)
    return np.where(np.isfinite(numbers)[:, None], matplotlib.colormaps["viridis"](shares), to_rgba_array(LACKING))


def limits(numbers: np.ndarray) -> tuple[float, float]:
    """Least and greatest finite number; 0 and 1 where there is none."""
    finite = numbers[np.isfinite(numbers)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def varies(values: pd.Series) -> bool:
    """Whether values are numbers on a scale (floats) that differ."""
    return not is_categorical(values) and bool(values.min() < values.max())


def is_categorical(values: pd.Series) -> bool:
    """Whether values are categories (text, truth values, whole numbers) rather than numbers on a scale."""
    return not pd.api.types.is_float_dtype(values.dtype)


def colour_columns(table: pd.DataFrame) -> list[str]:
    """Columns of a particle table to colour by, without the clusters: those of numbers or of at most `FEW` categories."""
    names = [name for name in table if name not in ("particle_id", "cluster", *SOURCE, *READ_POSE, *BOX)]
    return [name for name in names if not is_categorical(table[name]) or table[name].nunique() <= FEW]


def aligned(values: pd.Series, ids: np.ndarray, *, name: str) -> pd.Series:
    """Values, a Series by particle id, of these particles in this order; ValueError if one has none or several."""
    if not values.index.is_unique:
        raise ValueError(f"{name} must hold each particle id once, but {values.index.duplicated().sum()} are repeated")
    rows = values.index.get_indexer(ids)
    missing = np.asarray(ids)[rows < 0]
    if len(missing):
        raise ValueError(f"{name} is unknown for {len(missing)} of {len(rows)} particles, such as {missing[:5].tolist()}")
    return values.iloc[rows]


def require(table: pd.DataFrame, names: Sequence[str], what: str) -> None:
    """Raise ValueError, calling the table `what`, if it lacks one of the columns."""
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"{what} needs the columns {', '.join(names)}; {', '.join(missing)} is missing")


def grid(count: int, columns: int, *, size: float, extra: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Figure with `count` square panels without axes, `size` inches each and `extra` inches of title above each."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = Figure((columns * size, rows * (size + extra)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes:
        ax.axis("off")
    return figure, axes[:count]


def show_in_notebook() -> None:
    """Let the running notebook, if any, show a returned figure as a sharp PNG.

    Otherwise figures that pyplot does not create show only as text. Does nothing outside IPython.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.display_formatter.formatters["image/png"].for_type(Figure, png)


def darken(figure: Figure) -> None:
    """Turn a figure that was drawn on white into one for a dark theme; colours other than ink, greys and white stay."""
    inks = {INK: FAINT, QUIET: "#a8a8a8", FAINT: FAINT_ON_DARK, "#ffffff": DARK, "#000000": FAINT}
    # Ticks are made when they are drawn.
    figure.draw_without_rendering()
    for artist, name in itertools.product(figure.findobj(), ("color", "facecolor", "edgecolor")):
        found = getattr(artist, f"get_{name}", lambda: None)()
        if is_color_like(found) and (ink := inks.get(to_hex(found))):  # type: ignore[arg-type]
            getattr(artist, f"set_{name}")(ink)


def png(figure: Figure, *, sharpness: int = 2, dark: bool = False) -> tuple[bytes, dict[str, int]]:
    """PNG of a figure, for a light or a dark theme, and its size in pixels on the screen."""
    if dark:
        darken(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi * sharpness)
    width, height = (figure.get_size_inches() * figure.dpi).astype(int).tolist()
    return buffer.getvalue(), {"width": width, "height": height}
