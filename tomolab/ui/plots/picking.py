"""Takes scored candidates, draws their scores, and shows a threshold slider beside the picks in the tomogram.

>>> matched(matching.score(subtomograms, average))
>>> scores(found, score=5.0)
>>> slider = ThresholdSlider(tomogram, found)  # shows in a notebook
>>> slider.picks
"""

import io

import numpy as np
import pandas as pd
from ipywidgets import HTML, FloatSlider, Image, Layout, VBox
from matplotlib.figure import Figure

from tomolab import volumes
from tomolab.averaging import matching
from tomolab.picking import thresholds
from tomolab.ui import style
from tomolab.ui.plots import particles
from tomolab.ui.style import styled
from tomolab.volumes import Volume

BINS = 60


@styled
def scores(
    found: pd.DataFrame,
    *,
    score: float | None = None,
    distance: float | None = None,
    width: float = 7.0,
) -> Figure:
    """Histogram of the scores of all candidates, and the number of picks at each threshold.

    What is to be seen is a hump of noise and a shoulder or a second hump to its right; the threshold belongs between them.
    Which share of the picks is noise cannot be told from the scores alone.

    Parameters
    ----------
    found
        Result of `picking.candidates`.
    score
        A threshold to mark.
    distance
        Å between picks, as in `picking.choose`.
    width
        Of the figure in inches.

    Raises
    ------
    ValueError
        If there are no candidates.
    """
    ours = thresholds.choose(found, score=-np.inf, distance=distance)["score"].to_numpy()
    if len(ours) == 0:
        raise ValueError(f"none of {len(found)} candidates is free to be picked")
    figure = _figure(ours, None, score=score, width=width)
    picked = "" if score is None else f"{int((ours >= score).sum()):,} picks from a score of {score:.3g} on"
    top, below = figure.axes[:2]
    top.set(ylabel="peaks", title=picked)
    below.set(ylabel="picks", xlabel="score (standard deviations of the filtered tomogram)")
    return figure


@styled
def matched(found: pd.DataFrame, *, share: float = 0.75, width: float = 7.0) -> Figure:
    """Histogram of the scores of particles with a structure and its mirror image, and the threshold of `matching.select`.

    Parameters
    ----------
    found
        Result of `matching.score`.
    share
        As in `matching.select`.
    width
        Of the figure in inches.

    Raises
    ------
    ValueError
        If there are no scores.
    """
    if found.empty:
        raise ValueError("there are no scores to show")
    ours, theirs = (found[name].to_numpy() for name in ("match", "mirrored"))
    chosen = matching.select(found, share=share)
    score = float(found.loc[chosen, "match"].min()) if len(chosen) else None
    figure = _figure(ours, theirs, score=score, width=width, names=("structure", "its mirror image", "chance"))
    top, below = figure.axes[:2]
    top.set(ylabel="subtomograms", title=f"{len(chosen):,} of {len(found):,}: at most {share:.0%} by chance")
    below.set(ylabel="picks", xlabel="log-likelihood")
    return figure


def _figure(
    ours: np.ndarray,
    theirs: np.ndarray | None,
    *,
    score: float | None,
    width: float,
    names: tuple[str, str, str] = ("tomogram", "", ""),
) -> Figure:
    """Histograms above; below how many are over each score, and the share of them that those of `theirs` make up."""
    figure = Figure((width, 0.62 * width), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    edges = np.linspace(min(0.0, float(ours.min())), float(ours.max()) * 1.001 + 1e-6, BINS + 1)
    top.hist(ours, edges, color=style.OKABE_ITO[0], alpha=0.75, label=style.label(f"{names[0]}  ({len(ours):,})"))
    below.plot(np.sort(ours)[::-1], np.arange(1, len(ours) + 1), color=style.OKABE_ITO[0])
    if theirs is not None:
        top.hist(theirs, edges, histtype="step", color=style.OKABE_ITO[5], linewidth=1.5, label=style.label(names[1]))
        share = thresholds.false_discovery_rate(ours, theirs)
        right = below.twinx()
        right.plot(share["score"], share["share"], color=style.OKABE_ITO[5])
        right.set(ylim=(0, 1.03))
        right.set_ylabel(f"estimated share of {names[2]}", color=style.OKABE_ITO[5])
        right.spines[["right"]].set_visible(True)
        top.legend()
    if score is not None:
        for ax in (top, below):
            ax.axvline(score, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
    top.set(yscale="log")
    below.set(yscale="log")
    below.grid(axis="y")
    return figure


class ThresholdSlider(VBox):  # type: ignore[misc]
    """A slider of the score, the number of picks, and a slice of the tomogram with the picks on it.

    Sliders move with the arrow keys; page up and down move ten steps. Choosing changes nothing else: `picks` is the table.

    Parameters
    ----------
    volume
        The tomogram.
    found
        Result of `picking.candidates` for it.
    score
        First threshold; by default that of `picking.choose`.
    diameter
        Å, of the circles; the median of the candidates by default.
    low_pass
        Å; show only detail coarser than this.

    Raises
    ------
    ValueError
        If there are no candidates.
    """

    def __init__(
        self,
        volume: Volume,
        found: pd.DataFrame,
        *,
        score: float | None = None,
        diameter: float | None = None,
        low_pass: float | None = None,
    ) -> None:
        # Candidates are sorted, best first: a threshold keeps the first ones.
        self._all = thresholds.choose(found, score=-np.inf)
        if self._all.empty:
            raise ValueError(f"none of {len(found)} candidates is free to be picked")
        self._volume = volume if low_pass is None else volumes.low_pass(volume, low_pass)
        self._diameter = float(self._all["diameter"].median()) if diameter is None else diameter
        values = self._all["score"].to_numpy()
        begin = thresholds.choose(found)["score"].min() if score is None else score
        wide = Layout(width="100%", max_width="700px")
        low, high = min(0.0, float(values.min())), float(values.max())
        self.score = FloatSlider(
            value=float(np.clip(begin, low, high)),
            min=low,
            max=high,
            step=(high - low) / 200 or 1.0,
            description="score",
            readout_format=".2f",
            layout=wide,
        )
        last = (volume.shape[0] - 1) * volume.voxel_size
        self.height = FloatSlider(
            value=round(volume.shape[0] / 2) * volume.voxel_size if volume.shape[0] > 1 else 0.0,
            min=0.0,
            max=max(last, volume.voxel_size),
            step=volume.voxel_size,
            description="z (Å)",
            readout_format=".0f",
            layout=wide,
        )
        self.message = HTML()
        self.picture = Image(format="png", layout=Layout(max_width="700px"))
        super().__init__([self.score, self.height, self.message, self.picture])
        for slider in (self.score, self.height):
            slider.observe(lambda _: self._draw(), "value")
        self._draw()

    @property
    def picks(self) -> pd.DataFrame:
        """Particle table of the picks at this threshold."""
        return self._all[self._all["score"] >= self.score.value].reset_index(drop=True)

    def _draw(self) -> None:
        picks = self.picks
        self.message.value = f"<b>{len(picks):,} picks</b>"
        height = min(self.height.value, (self._volume.shape[0] - 1) * self._volume.voxel_size)
        figure = particles.picks(self._volume, picks, diameter=self._diameter, z=height, width=6.5)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        self.picture.value = buffer.getvalue()
