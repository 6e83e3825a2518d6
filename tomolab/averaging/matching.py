"""Subtomograms and a structure, or an average and a known map in; how well they fit out, beside the mirror image.

An average that some of the picks made finds the others of its kind among all of them. The mirror image of it is of the same
size and density and is nowhere in the cell, so how well it fits tells what fits by chance.

>>> found = score(subtomograms, average)
>>> more = found.index[found["match"] > 25]
>>> compare(averaging.average(subtomograms, more, seed=1, start=average), densities.load(...)["ribosome_70s"])
Comparison(as it is: FSC 0.5 at 36 Å; its mirror image: at 80 Å)
"""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from tomolab import parallel, volumes
from tomolab.averaging import alignment, coefficients, pose_search, refinement
from tomolab.averaging.fsc import correlate, crossing
from tomolab.averaging.half_maps import Average
from tomolab.averaging.initial_model import Model
from tomolab.picking import thresholds
from tomolab.subtomograms.dataset import Subtomograms, reachable, reached
from tomolab.volumes import Volume

BATCH = 500
"""Subtomograms oriented at a time."""
HALF = 0.5
"""FSC with a known map, which has no noise, at which a resolution is read (Rosenthal and Henderson 2003)."""


def score(
    subtomograms: Subtomograms,
    structure: Average | Model | Volume,
    ids: Any = None,
    *,
    resolution: float = 60.0,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    progress: bool = True,
    device: str | None = None,
    client: Any = None,
) -> pd.DataFrame:
    """Orient every subtomogram by a structure, and by the mirror image of it, and tell how well each fits.

    Parameters
    ----------
    subtomograms
        In memory or on disk; as many as there are, chosen or not.
    structure
        An average or a first structure of subtomograms cut and normalised as these: its shells count as much as they are worth.
        Or any map, of which every shell counts alike.
    ids
        Particles to score; all by default.
    resolution
        Å; finer detail is not used. Finer tells better apart and takes longer.
    mask_diameter
        Å, of the soft spherical mask on the structure; the one that it was made with by default.
    max_shift
        Longest distance of a particle from the centre of its box, in Å; a tenth of the box by default.
    progress
        Show a bar.
    device
        "cpu", "cuda", or by default the GPU if there is one.
    client
        Workers of a Dask cluster that score, each on its own device (`parallel`); they read a store at its path themselves,
        what lies in memory is sent. By default the active `distributed.Client`, if there is one; False works here.

    Returns
    -------
    DataFrame
        By particle id: ``match``, the log-likelihood against no structure in the best orientation, and ``mirrored``, of
        its mirror image.

    Raises
    ------
    ValueError
        If ids are unknown, the structure is constant, or a length is out of range.
    """
    helpers = parallel.active(client)
    if helpers is None:
        parallel.pick_device(device)
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    given, own = (structure, None) if isinstance(structure, Volume) else (structure.volume, structure.record.get("mask"))
    box, settings = refinement.plan(chosen, mask_diameter=mask_diameter or own, max_shift=max_shift)
    volume = pose_search.check(given, resolution, chosen)
    maps = {"match": volume, "mirrored": volumes.mirror(volume)}
    level = isinstance(structure, Volume)
    settled: dict[str, Any] = {"resolution": resolution, "diameter": settings.diameter, "reach": settings.reach, "level": level}
    batches = [chosen.ids[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    parts = (chosen.choose(ids) if helpers is None or reachable(chosen.volumes) else chosen.take(ids) for ids in batches)
    found: list[pd.DataFrame] = []
    with tqdm(total=len(chosen), desc="scoring", unit=" subtomograms", disable=not progress) as bar:
        for some in parallel.each(_scored, parts, client=helpers, shared=(maps, box, settled, device)):
            found.append(some)
            bar.update(len(some))
    return pd.concat(found)


def _scored(part: Subtomograms, maps: dict[str, Volume], box: int, *rest: Any) -> pd.DataFrame:
    """How well each map fits some subtomograms, by their ids."""
    settled, device = rest
    some = replace(part, volumes=reached(part.volumes)) if reachable(part.volumes) else part
    radius = box * part.voxel_size / settled["resolution"]
    data = coefficients.read(some, box=box, radius=radius, device=parallel.pick_device(device))
    scores = {name: pose_search.against(some, data, one, **settled).scores for name, one in maps.items()}
    return pd.DataFrame(scores, index=pd.Index(part.ids, name="particle_id"))


def shares(found: pd.DataFrame) -> pd.DataFrame:
    """Which share of those above a score fits by chance, as the mirror image tells it.

    Of what has the size and density of the structure but is something else, or is it too far gone in noise, one hand fits as
    often as the other. Of the particles themselves the mirror image fits too, less well, so that the share is rather too high.

    Parameters
    ----------
    found
        What `score` returned.

    Returns
    -------
    DataFrame
        From the highest score to the lowest, as in `thresholds.false_discovery`: ``score``, ``picks``, ``noise``, ``share``.
    """
    return thresholds.false_discovery_rate(found["match"].to_numpy(), found["mirrored"].to_numpy())


def likely(found: pd.DataFrame, *, share: float = 0.75) -> pd.Index:
    """Particles from the lowest score on at which no more than a share of them is estimated to fit by chance.

    The estimate is far too high where the mirror image fits the particles themselves, and a search from random orientations
    gains more from weak particles than it loses by others. So the choice is loose by default.

    Parameters
    ----------
    found
        What `score` returned.
    share
        At most so much of them (`shares`).

    Returns
    -------
    Index
        Particle ids, best first.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {share}")
    return found["match"].nlargest(int((shares(found)["share"] <= share).sum())).index


@dataclass(frozen=True, eq=False)
class Comparison:
    """An average beside a known map and the mirror image of it, both turned onto the average.

    Parameters
    ----------
    known, mirrored
        The known map and its mirror image, turned and moved onto the average.
    fsc
        From coarse to fine: ``resolution`` in Å, ``fsc`` with the known map, ``mirrored`` with its mirror image.
    """

    known: Volume
    mirrored: Volume
    fsc: pd.DataFrame

    def __repr__(self) -> str:
        mirrored = self.fsc[["resolution"]].assign(fsc=self.fsc["mirrored"])
        other = f"its mirror image: at {crossing(mirrored, HALF):.0f} Å"
        return f"Comparison(as it is: FSC {HALF} at {self.resolution:.0f} Å; {other})"

    @property
    def resolution(self) -> float:
        """Å at which the FSC with the known map, as it is, first falls to 0.5."""
        return crossing(self.fsc, HALF)


def compare(average: Average | Volume, known: Volume, *, mask_diameter: float | None = None) -> Comparison:
    """Turn a known map, and the mirror image of it, onto an average, and tell how far they agree.

    What has been made without a template is judged so. A handedness that is clearly preferred is that of the data; where both
    curves are alike, the resolution cannot tell.

    Parameters
    ----------
    average
        The average, or the map of one.
    known
        A map of what it should be, at any voxel size and in any cubic box.
    mask_diameter
        Å, of the soft sphere inside which they are compared; that of the average by default, or the box.

    Raises
    ------
    ValueError
        If a map is constant or no cube.
    """
    fixed, across = framed(average, mask_diameter)
    moving = volumes.fit(volumes.resample(known, fixed.voxel_size), fixed.shape[0])
    straight, mirrored = (_onto(one, fixed, across=across) for one in (moving, volumes.mirror(moving)))
    curve, other = (correlate(one, fixed, diameter=across / fixed.voxel_size) for one in (straight, mirrored))
    return Comparison(straight, mirrored, curve[["resolution", "fsc"]].assign(mirrored=other["fsc"]))


def framed(average: Average | Volume, mask_diameter: float | None) -> tuple[Volume, float]:
    """The map of an average, and Å across the soft sphere inside which it is compared: `mask_diameter`, its own, or the box."""
    fixed = average if isinstance(average, Volume) else average.volume
    own = None if isinstance(average, Volume) else average.record.get("mask")
    return fixed, mask_diameter or own or fixed.extent[0]


def _onto(moving: Volume, fixed: Volume, *, across: float) -> Volume:
    """The moving map where it agrees best with the fixed one, of what detail of two sizes finds."""
    tried = []
    for share in (3.0, 5.0):
        # So many shells of the particle: enough to orient it, and not yet the noise.
        radius = min(share * fixed.extent[0] / across, fixed.shape[0] / 2 - 2)
        found = alignment.align_map(moving, fixed, radius=radius, fine_radius=min(1.5 * radius, fixed.shape[0] / 2 - 2))
        turned = alignment.apply(moving, found)
        fsc = correlate(turned, fixed, diameter=across / fixed.voxel_size)["fsc"]
        tried.append((float(fsc.iloc[: int(2 * radius)].mean()), turned))
    return max(tried, key=lambda one: one[0])[1]
