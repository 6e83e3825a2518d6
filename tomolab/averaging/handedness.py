"""Takes an average and a known map; gives the hand of the data: that of the map or of its mirror image.

A tilt series alone does not show its hand. With the other sign of the tilts, or images that a camera mirrored, everything in
the tomogram is its own mirror image and fits as well. A structure of known hand decides it, if the average resolves detail in
which that differs from its mirror image.

>>> found = compare_hands(average, densities.load(...)["ribosome_70s"])
>>> print(found)
as it is: FSC 0.5 with the known map at 34 Å, with its mirror image at 87 Å (margin 1.023, 16 deviations)
>>> found.add_to(average).save("runs/real/average")
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tomolab.averaging import matching
from tomolab.averaging.fsc import correlate
from tomolab.averaging.half_maps import Average
from tomolab.averaging.matching import HALF, Comparison
from tomolab.volumes import Volume

AS_IT_IS, MIRRORED, UNDECIDED = "as it is", "mirrored", "undecided"
MARGIN = 0.4
"""Least share of the difference between both hands that the data must show."""
DEVIATIONS = 4.0
"""Standard deviations of noise that it must exceed."""
MIN_DIFFERENCE = 0.1
"""Difference of both FSC curves that must be expected in two shells: smaller ones come from the alignment of the maps."""
ADVICE = {
    AS_IT_IS: "the data have the hand of the known map",
    MIRRORED: "the data are the mirror image of the known map: read the tilt series with the other invert_tilts",
    UNDECIDED: "at this resolution the data do not show whether they have the hand of the known map",
}


@dataclass(frozen=True, eq=False)
class Hand:
    """The hand of data.

    Parameters
    ----------
    verdict
        Hand of the data: "as it is", that of the known map; "mirrored", the other one; or "undecided".
    margin
        How much of the difference between the known map and its mirror image the data show: about 1 if they have the hand of
        the known map, about -1 if they have the other, about 0 if they fit both as well.
    deviations
        `margin` in standard deviations of its noise.
    comparison
        Both maps aligned to the average, and their FSC with it.
    """

    verdict: str
    margin: float
    deviations: float
    comparison: Comparison

    def __str__(self) -> str:
        how = f"margin {round(self.margin, 3):g}, {abs(self.deviations):.0f} deviations"
        right, other = self.resolutions
        at = f"FSC {HALF} with the known map at {right:.0f} Å, with its mirror image at {other:.0f} Å"
        return f"{self.verdict}: {at} ({how})"

    @property
    def resolutions(self) -> tuple[float, float]:
        """Å at which the FSC with the known map falls to 0.5, and that with its mirror image."""
        return self.comparison.resolutions

    @property
    def advice(self) -> str:
        """What it means for the tilt series."""
        return ADVICE[self.verdict]

    @property
    def record(self) -> dict[str, Any]:
        """What `add_to` keeps, as it can stand in JSON."""
        right, other = self.resolutions
        numbers = {"margin": round(self.margin, 3), "deviations": round(self.deviations, 2)}
        numbers |= {"resolution": round(right, 2), "mirrored": round(other, 2)}
        curves = {name: values.round(4).tolist() for name, values in self.comparison.fsc.items()}
        return {"verdict": self.verdict, "advice": self.advice, **numbers, "fsc": curves}

    def add_to(self, average: Average) -> Average:
        """The average with the verdict in its record, which is saved with it and shown on the page of the run."""
        return replace(average, record=average.record | {"hand": self.record})


def compare_hands(average: Average | Volume, known: Volume, *, mask_diameter: float | None = None) -> Hand:
    """Decide whether an average has the hand of a known map or the other one, or does not show it.

    In every shell the average is correlated with the known map and with its mirror image, both aligned to it. The expected
    difference of the two curves follows from the FSC of both maps with each other. `Hand.margin` is the least-squares fit of
    the observed difference to the expected one; a shell weighs by its number of independent coefficients and by how far the
    average agrees with either map. Only shells up to the resolution of the average count.

    Parameters
    ----------
    average
        The average, or the map of one. All shells of a map count, so give one that is low-passed to its resolution.
    known
        A map whose hand is right, at any voxel size and in any cubic box.
    mask_diameter
        Å, of the soft spherical mask for the comparison; that of the average by default, or the box.

    Raises
    ------
    ValueError
        If a map is constant or not a cube.
    """
    found = matching.compare(average, known, mask_diameter=mask_diameter)
    fixed, mask = matching.map_and_mask(average)
    diameter = mask_diameter or mask or fixed.extent[0]
    between = correlate(found.known, found.mirrored, diameter_voxels=diameter / fixed.voxel_size)["fsc"].to_numpy()
    finest = 0.0 if isinstance(average, Volume) else average.resolution
    seen = found.fsc[found.fsc["resolution"] > 0.999 * finest]
    margin, deviation, expected = _fit_margin(seen, between, diameter=diameter)
    clear = expected > MIN_DIFFERENCE and abs(margin) > max(MARGIN, DEVIATIONS * deviation)
    verdict = UNDECIDED if not clear else AS_IT_IS if margin > 0 else MIRRORED
    return Hand(verdict, margin, margin / deviation, found)


def _fit_margin(curves: pd.DataFrame, between: np.ndarray, *, diameter: float) -> tuple[float, float, float]:
    """Observed share of the expected difference between two curves, its deviation by noise, and the expected difference.

    `curves` has the FSC with both maps from the coarsest shell on, `between` is the FSC of both maps with each other. The third
    value is the expected difference in the second best shell.
    """
    frequency = 1 / curves["resolution"].to_numpy()
    half = frequency[0] / 2
    # A shell has as many independent coefficients as its volume times that of the mask of this diameter in Å.
    numbers = (np.pi / 6 * diameter**3) * 4 / 3 * np.pi * ((frequency + half) ** 3 - (frequency - half) ** 3)
    straight, mirrored = (curves[name].to_numpy() for name in ("fsc", "mirrored"))
    unlike = (1 - between[: len(curves)]).clip(1e-6)
    expected = np.maximum(straight, mirrored).clip(0, 1) * unlike
    # The difference is the correlation with a map of power 2 (1 - between), and scatters by the root of it over the numbers.
    weight = numbers / (2 * unlike)
    information = max(float((weight * expected**2).sum()), 1e-12)
    second = float(np.sort(expected)[-2]) if len(expected) > 1 else 0.0
    return float((weight * expected * (straight - mirrored)).sum() / information), information**-0.5, second
