"""An average and a known map in; out comes which hand the data prefer: that of the map or of its mirror image.

Nobody can see from a tilt series alone which hand it has: with the tilts of the other sign, or images that a camera mirrored,
all fits as well, and everything in the tomogram is its own mirror image. A structure whose hand is known decides it, if the
average shows detail in which that differs from its mirror image.

>>> found = judge(average, densities.load(...)["ribosome_70s"])
>>> print(found)
as it is: FSC 0.5 with the known map at 34 Å, with its mirror image at 87 Å (margin 1.023, 16 deviations)
>>> found.noted(average).save("runs/real/average")
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tomolab.averaging import matching
from tomolab.averaging.fsc import correlate, crossing
from tomolab.averaging.half_maps import Average
from tomolab.averaging.matching import HALF, Comparison
from tomolab.volumes import Volume

AS_IT_IS, MIRRORED, UNDECIDED = "as it is", "mirrored", "undecided"
MARGIN = 0.4
"""Share of the difference between both hands that the data must show."""
DEVIATIONS = 4.0
"""Standard deviations of noise that it must exceed."""
SHOWN = 0.1
"""Difference of both FSC curves that must be expected in two shells: maps that are more alike differ by how they were laid."""
ADVICE = {
    AS_IT_IS: "the data have the hand of the known map",
    MIRRORED: "the data are the mirror image of the known map: read the tilt series with the other invert_tilts",
    UNDECIDED: "at this resolution the data do not tell the hand of the known map from the other",
}


@dataclass(frozen=True, eq=False)
class Hand:
    """Which hand data prefer.

    Parameters
    ----------
    verdict
        "as it is": the data have the hand of the known map. "mirrored": the other one. "undecided": they do not tell.
    margin
        How much of the difference between the known map and its mirror image the data show: about 1 where they have the hand
        of the known map, about -1 where they have the other, about 0 where they fit both as well.
    deviations
        `margin` in standard deviations of what noise alone would make it.
    comparison
        Both maps turned onto the average, and how far each agrees with it.
    """

    verdict: str
    margin: float
    deviations: float
    comparison: Comparison

    def __str__(self) -> str:
        told, (right, other) = self.record, self.resolutions
        how = f"margin {told['margin']:g}, {abs(self.deviations):.0f} deviations"
        at = f"FSC {HALF} with the known map at {right:.0f} Å, with its mirror image at {other:.0f} Å"
        return f"{self.verdict}: {at} ({how})"

    @property
    def resolutions(self) -> tuple[float, float]:
        """Å at which the FSC with the known map falls to 0.5, and that with its mirror image."""
        mirrored = self.comparison.fsc.assign(fsc=self.comparison.fsc["mirrored"])
        return self.comparison.resolution, crossing(mirrored, HALF)

    @property
    def advice(self) -> str:
        """What it means for the tilt series."""
        return ADVICE[self.verdict]

    @property
    def record(self) -> dict[str, Any]:
        """What `noted` keeps, as it can stand in JSON."""
        right, other = self.resolutions
        numbers = {"margin": round(self.margin, 3), "deviations": round(self.deviations, 2)}
        numbers |= {"resolution": round(right, 2), "mirrored": round(other, 2)}
        curves = {name: values.round(4).tolist() for name, values in self.comparison.fsc.items()}
        return {"verdict": self.verdict, "advice": self.advice, **numbers, "fsc": curves}

    def noted(self, average: Average) -> Average:
        """The average with the verdict in its record, so that it is saved with it and stands on the page of the run."""
        return replace(average, record=average.record | {"hand": self.record})


def judge(average: Average | Volume, known: Volume, *, mask_diameter: float | None = None) -> Hand:
    """Tell whether an average has the hand of a known map, the other one, or does not show it.

    In every shell the average correlates with the known map and with the mirror image of it, both turned onto it. How much the
    two curves should differ follows from how unlike both maps are in that shell; `Hand.margin` is the least-squares fit of the
    difference that was found to the one expected, shells counted by how many independent numbers they hold and how far the
    average agrees with either. Only shells up to the resolution of the average count.

    Parameters
    ----------
    average
        The average, or the map of one; of a map all shells count, so give one that is low-passed to what is to be believed.
    known
        A map whose hand is right, at any voxel size and in any cubic box.
    mask_diameter
        Å, of the soft sphere inside which they are compared; that of the average by default, or the box.

    Raises
    ------
    ValueError
        If a map is constant or no cube.
    """
    found = matching.compare(average, known, mask_diameter=mask_diameter)
    fixed, across = matching.framed(average, mask_diameter)
    alike = correlate(found.known, found.mirrored, diameter=across / fixed.voxel_size)["fsc"].to_numpy()
    finest = 0.0 if isinstance(average, Volume) else average.resolution
    seen = found.fsc[found.fsc["resolution"] > 0.999 * finest]
    margin, deviation, shown = weigh(seen, alike, across=across)
    clear = shown > SHOWN and abs(margin) > max(MARGIN, DEVIATIONS * deviation)
    verdict = UNDECIDED if not clear else AS_IT_IS if margin > 0 else MIRRORED
    return Hand(verdict, margin, margin / deviation, found)


def weigh(curves: pd.DataFrame, alike: np.ndarray, *, across: float) -> tuple[float, float, float]:
    """How much of the expected difference between two curves there is, how far noise moves that, and how large it is.

    Parameters
    ----------
    curves
        From the coarsest shell on: ``resolution`` in Å, ``fsc`` with one map, ``mirrored`` with the other.
    alike
        FSC of both maps with each other, of as many shells or more.
    across
        Å, diameter of the mask, by which as many numbers in a shell are independent as its volume times that of the mask.

    Returns
    -------
    margin, deviation, shown
        The share, its standard deviation by noise, and the difference expected in the second of the shells that tell most.
    """
    frequency = 1 / curves["resolution"].to_numpy()
    half = frequency[0] / 2
    numbers = (np.pi / 6 * across**3) * 4 / 3 * np.pi * ((frequency + half) ** 3 - (frequency - half) ** 3)
    straight, mirrored = (curves[name].to_numpy() for name in ("fsc", "mirrored"))
    unlike = (1 - alike[: len(curves)]).clip(1e-6)
    expected = np.maximum(straight, mirrored).clip(0, 1) * unlike
    # The difference is that with a map of power 2 (1 - alike), and scatters by the root of it over the numbers.
    weight = numbers / (2 * unlike)
    information = max(float((weight * expected**2).sum()), 1e-12)
    shown = float(np.sort(expected)[-2]) if len(expected) > 1 else 0.0
    return float((weight * expected * (straight - mirrored)).sum() / information), information**-0.5, shown
