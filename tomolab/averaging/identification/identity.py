"""Takes an average and a catalogue of known maps; gives the name of its structure, or that it is none of them.

Every map of the catalogue and its mirror image are aligned to the average. Their correlation counts every Fourier shell by how
far the halves of the average agree there, and is about 1 for the right map, whatever the noise. How well a structure fits that
is not in the catalogue follows from the catalogue itself: from the fits of its maps to those of other structures.

>>> catalogue = Catalogue.from_maps(simulation.load_densities(), about=simulation.catalogue().set_index("name"))
>>> catalogue.add("my complex", earlier).save("runs/catalogue")
>>> found = identify(average, Catalogue.load("runs/catalogue"))
>>> print(found)
known: ribosome_70s (r 0.98, p 0.0002)
>>> found.add_to(average).save("runs/real/average")
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from tomolab.averaging import alignment
from tomolab.averaging.alignment import Fit
from tomolab.averaging.fsc import THRESHOLD
from tomolab.averaging.half_maps import Average
from tomolab.averaging.handedness import AS_IT_IS, MIRRORED, UNDECIDED
from tomolab.averaging.identification.catalogue import Catalogue
from tomolab.averaging.identification.fitting import (
    MIN_MAPS,
    MIN_SHELLS,
    SAME,
    Fits,
    Library,
    expected_correlations,
    last_shell,
    search,
)
from tomolab.averaging.matching import map_and_mask
from tomolab.volumes import Volume, apply_mask

KNOWN, AMBIGUOUS, NOVEL = "known", "ambiguous", "novel"
SIGNIFICANT = 0.01
"""Largest p-value of a known structure."""
DEVIATIONS = 2.0
"""Differences of two correlations up to this many standard deviations do not decide between two maps."""
MIN_DIFFERENCE = 0.02
"""Nor do smaller ones, which come from resampling."""


@dataclass(frozen=True, eq=False)
class Identity:
    """What an average is.

    Parameters
    ----------
    verdict
        "known"; "ambiguous", if other maps fit about as well as the best, or if the average has so little detail that one of
        them may fit by chance; or "novel", if none fits.
    fits
        The maps that fit best, best first: ``name``; ``correlation``, about 1 for the right map; ``hand``, that of the average
        against the map ("as it is", "mirrored" or "undecided"); ``p_value``, how often a structure that is not in the catalogue
        would fit its nearest map as well; ``behind``, by how much the correlation is lower than the best; ``deviation``, the
        standard deviation of that difference by the noise of the average; ``fit``, which brings the map onto the average.
    nearest
        The map that fits best, in the best hand, rotated and shifted onto the average.
    """

    verdict: str
    fits: pd.DataFrame
    nearest: Volume

    def __str__(self) -> str:
        best = self.fits.iloc[0]
        numbers = f"(r {best['correlation']:.2f}, p {best['p_value']:.1g})"
        mirrored = ", mirrored" if best["hand"] == MIRRORED else ""
        if self.verdict == NOVEL:
            return f"novel: nearest {best['name']}{mirrored} {numbers}"
        return f"{self.verdict}: {' or '.join(self.names)}{mirrored} {numbers}"

    @property
    def names(self) -> list[str]:
        """The name of a known structure; several if it is ambiguous; none if it is novel."""
        return [] if self.verdict == NOVEL else self.fits.loc[_within(self.fits), "name"].tolist()

    @property
    def hand(self) -> str:
        """Hand of the average, by the map that fits best."""
        return str(self.fits["hand"].iloc[0])

    @property
    def record(self) -> dict[str, Any]:
        """What `add_to` keeps, as it can stand in JSON."""
        table = self.fits[["name", "correlation", "hand", "p_value"]].head(5)
        fits = [{**row, "correlation": round(row["correlation"], 4)} for row in table.to_dict("records")]
        return {"verdict": self.verdict, "names": self.names, "sentence": str(self), "fits": fits}

    def add_to(self, average: Average) -> Average:
        """The average with the verdict in its record, which is saved with it."""
        return replace(average, record=average.record | {"identity": self.record})


def identify(
    average: Average | Volume, catalogue: Catalogue, *, resolution: float | None = None, mask_diameter: float | None = None
) -> Identity:
    """Find the map of a catalogue that an average shows, in either hand, or that it shows none of them.

    The correlation with a map is r = Σ n c o / Σ n c² over the Fourier shells up to the resolution: n is the number of
    coefficients in the shell, o the correlation of both maps there, and c = sqrt(2 FSC / (1 + FSC)) the one that is expected
    for the right map. The p-value compares r with that of the maps of the catalogue, each with the nearest map of another
    structure, at the same FSC; Fisher's z of it is taken as normally distributed. A structure is novel if r is below
    0.8, and known if p is at most 0.01 and no other map is within two standard deviations of the noise of the average.

    Parameters
    ----------
    average
        An average, or a map with a `resolution`; a cube, with density brighter than its surroundings.
    catalogue
        With maps of at least 4 different structures.
    resolution
        Å; finer detail is not used. By default that where the FSC falls below 0.143.
    mask_diameter
        Å, of the soft spherical mask on the average; that of the average by default, or the box.

    Raises
    ------
    ValueError
        If a map has no resolution, is constant or not a cube; or if the catalogue has too few maps, or one that is larger than
        the box of the average.
    """
    volume, mask = map_and_mask(average)
    expected = _expected(average, resolution)
    _check(volume, catalogue)
    library = Library.of(catalogue, volume)
    diameter = min(mask_diameter or mask or np.inf, 0.95 * volume.extent[0]) / volume.voxel_size
    masked = apply_mask(torch.from_numpy(volume.data), diameter)
    chance = library.nearest_others(len(expected) - 1)
    (found,) = search(masked, library, [expected])
    halves = () if isinstance(average, Volume) else (average.half1, average.half2)
    curves = [found.curves_of(apply_mask(torch.from_numpy(half.data), diameter), library) for half in halves]
    fits = _compare(found, curves, expected=expected, library=library, names=list(catalogue.maps))
    fits["p_value"] = _p_values(fits["correlation"].to_numpy(), library.correlations(chance * expected, expected).numpy())
    best = fits.iloc[0]
    sure = best["p_value"] <= SIGNIFICANT and _within(fits).sum() == 1
    verdict = NOVEL if best["correlation"] < SAME else KNOWN if sure else AMBIGUOUS
    row = int(best["row"])
    nearest = alignment.apply(Volume(library.densities[row].numpy(), volume.voxel_size), best["fit"])
    columns = ["name", "correlation", "hand", "p_value", "behind", "deviation", "fit"]
    return Identity(verdict, fits[columns], nearest)


def _within(fits: pd.DataFrame) -> pd.Series:
    """Which fits are so close to the best that they may be the right one."""
    return fits["behind"] <= np.maximum(DEVIATIONS * fits["deviation"], MIN_DIFFERENCE)


def _expected(average: Average | Volume, resolution: float | None) -> Tensor:
    """Correlation (shells + 1,) of an average with the right map that is expected in every shell, from shell 0."""
    extent, finest = (average if isinstance(average, Volume) else average.volume).extent[0], 0.0
    if resolution is not None:
        if not (np.isfinite(resolution) and resolution > 0):
            raise ValueError(f"the resolution must be a positive number of Å, got {resolution}")
        finest = extent / resolution
    largest = last_shell((average if isinstance(average, Volume) else average.volume).shape[0])
    if isinstance(average, Volume):
        if resolution is None:
            raise ValueError("a map needs its resolution in Å: give resolution=")
        return expected_correlations(max(MIN_SHELLS, min(int(finest + 1e-3), largest)))
    fsc = average.fsc["fsc"].to_numpy()
    below = np.flatnonzero(fsc < THRESHOLD)
    shells = min(int(below[0]) if len(below) else len(fsc), largest, int(finest + 1e-3) if finest else largest)
    shells = min(max(MIN_SHELLS, shells), len(fsc))
    kept = fsc[:shells].clip(0.02, 1)
    return torch.from_numpy(np.append(1.0, np.sqrt(2 * kept / (1 + kept)))).float()


def _check(volume: Volume, catalogue: Catalogue) -> None:
    """Raise ValueError unless every map of the catalogue can be compared with the map of an average."""
    if len(set(volume.shape)) != 1 or volume.shape[0] < 2 * MIN_SHELLS + 2:
        raise ValueError(f"the map of an average is a cube of {2 * MIN_SHELLS + 2} voxels or more, got {volume!r}")
    if np.ptp(volume.data) == 0:
        raise ValueError("a constant map shows no structure")
    if len(catalogue) < MIN_MAPS:
        raise ValueError(
            f"a catalogue needs at least {MIN_MAPS} maps, to show how well other structures fit; it has {len(catalogue)}"
        )
    extent = volume.extent[0]
    large = catalogue.table["diameter"] > extent
    if large.any():
        name, diameter = large.idxmax(), catalogue.table["diameter"][large.idxmax()]
        raise ValueError(
            f"{int(large.sum())} maps are larger than the box of {extent:g} Å, such as {name} ({diameter:.0f} Å): "
            f"use a larger box, or leave them out by catalogue.choose(catalogue.table.query('diameter <= {extent:g}').index)"
        )


def _compare(
    found: Fits, halves: Sequence[Tensor], *, expected: Tensor, library: Library, names: Sequence[str]
) -> pd.DataFrame:
    """Table of the fits, one row for each map in its better hand, best first; `halves` are the curves of both half maps."""
    count, voxel_size = len(found.rows) // 2, library.voxel_size
    noise = torch.zeros_like(found.curves)
    if len(halves):
        # Half maps correlate with the right map to sqrt(FSC), which is less than their sum does.
        noise = (halves[0] - halves[1]) * (2 - expected.square()).sqrt() / 2
    weight = library.numbers[: len(expected)] * expected
    noise = noise * weight / (weight * expected).sum()
    both = found.correlation.reshape(2, count)
    better = both.argmax(0)
    at = better * count + torch.arange(count)
    at = at[found.correlation[at].argsort(descending=True)]
    other = (at + count) % (2 * count)

    def deviations(first: Tensor, second: Tensor) -> np.ndarray:
        return (noise[first] - noise[second]).square().sum(1).sqrt().double().numpy()

    r = found.correlation.double().numpy()
    unclear = r[at] - r[other] <= np.maximum(DEVIATIONS * deviations(at, other), MIN_DIFFERENCE)
    mirrored = (found.rows[at] >= len(names)).numpy()
    turns, shifts = found.turns[at].double().numpy().swapaxes(1, 2), found.shifts[at].double().numpy() * voxel_size
    fits = [Fit(turn, -turn @ shift, float(one)) for turn, shift, one in zip(turns, shifts, r[at], strict=True)]
    return pd.DataFrame(
        {
            "name": [names[row % len(names)] for row in found.rows[at].tolist()],
            "row": found.rows[at].numpy(),
            "correlation": r[at],
            "hand": np.where(unclear, UNDECIDED, np.where(mirrored, MIRRORED, AS_IT_IS)),
            "behind": r[at[0]] - r[at],
            "deviation": deviations(at, at[:1].expand(count)),
            "fit": fits,
        }
    )


def _p_values(correlations: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Probability that one more value distributed as `chance` (q,) is at least as high (Student's t of Fisher's z)."""
    z, others = (np.arctanh(one.clip(-0.99, 0.99)) for one in (correlations, chance))
    width = max(float(others.std(ddof=1)), 0.05) * (1 + 1 / len(others)) ** 0.5
    return np.asarray(stats.t.sf((z - others.mean()) / width, df=len(others) - 1))
