"""Takes subtomograms and a structure, or an average and a known map; gives how well they fit, beside the mirror image.

An average of some of the picks finds the other particles of its structure among all of them. Its mirror image has the same size
and density and does not exist in the cell, so the scores of that show how well a structure fits by chance.

>>> found = score(subtomograms, average)
>>> more = select(found, share=0.9)
>>> compare(averaging.average(subtomograms, more, seed=1, start=average), densities.load(...)["ribosome_70s"])
Comparison(as it is: FSC 0.5 at 36 Å; its mirror image: at 80 Å)
"""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from tomolab import parallel, volumes
from tomolab.averaging import alignment, pose_search, refinement
from tomolab.averaging.fsc import correlate, resolution_at
from tomolab.averaging.half_maps import Average
from tomolab.averaging.initial_model import InitialModel
from tomolab.picking import thresholds
from tomolab.subtomograms.dataset import Subtomograms, reachable, reached
from tomolab.volumes import Volume

BATCH = 500
"""Subtomograms aligned at a time."""
HALF = 0.5
"""Threshold of the FSC with a known map, which has no noise (Rosenthal and Henderson 2003)."""


def score(
    subtomograms: Subtomograms,
    structure: Average | InitialModel | Volume,
    ids: Any = None,
    *,
    resolution: float = 60.0,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    progress: bool = True,
    device: str | None = None,
    client: Any = None,
) -> pd.DataFrame:
    """Align every subtomogram to a structure and to its mirror image, and return both scores.

    Parameters
    ----------
    subtomograms
        In memory or on disk.
    structure
        An average or a first structure of subtomograms cut and normalised as these, whose shells count as they are. Or any map,
        whose shells all count alike.
    ids
        Particles to score; all by default.
    resolution
        Å; finer detail is not used. A finer one separates better and takes longer.
    mask_diameter
        Å, of the soft spherical mask on the structure; that of the structure by default.
    progress
        Show a bar.
    client
        As in `averaging.average`; workers read a store at its path themselves, subtomograms in memory are sent.
    max_shift, device
        As in `averaging.average`.

    Returns
    -------
    DataFrame
        By particle id: ``match``, the log-likelihood against no structure in the best orientation, and ``mirrored``, that of
        the mirror image.

    Raises
    ------
    ValueError
        If ids are unknown, the structure is constant, or a length is out of range.
    """
    workers = parallel.active(client)
    if workers is None:
        parallel.pick_device(device)
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    given, mask = map_and_mask(structure)
    box, settings = refinement.choose_settings(chosen, mask_diameter=mask_diameter or mask, max_shift=max_shift)
    volume = pose_search.match_box(given, resolution, chosen)
    maps = {"match": volume, "mirrored": volumes.mirror(volume)}
    lengths = {"diameter_voxels": settings.diameter_voxels, "max_shift_voxels": settings.max_shift_voxels}
    options: dict[str, Any] = {"resolution": resolution, "flat_spectrum": isinstance(structure, Volume)} | lengths
    batches = [chosen.ids[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    parts = (chosen.choose(ids) if workers is None or reachable(chosen.volumes) else chosen.take(ids) for ids in batches)
    found: list[pd.DataFrame] = []
    with tqdm(total=len(chosen), desc="scoring", unit=" subtomograms", disable=not progress) as bar:
        for some in parallel.each(_score, parts, client=workers, shared=(maps, box, options, device)):
            found.append(some)
            bar.update(len(some))
    return pd.concat(found)


def _score(part: Subtomograms, maps: dict[str, Volume], box: int, *rest: Any) -> pd.DataFrame:
    """Score of some subtomograms against each map, by their ids."""
    options, device = rest
    some = replace(part, volumes=reached(part.volumes)) if reachable(part.volumes) else part
    data = pose_search.read(some, resolution=options["resolution"], box=box, device=parallel.pick_device(device))
    scores = {name: pose_search.align_to_map(some, data, one, **options).scores for name, one in maps.items()}
    return pd.DataFrame(scores, index=pd.Index(part.ids, name="particle_id"))


def select(found: pd.DataFrame, *, share: float = 0.75) -> pd.Index:
    """Particles down to the lowest score at which at most a share of them is estimated to fit by chance.

    The estimate counts how often the mirror image reaches the score (`thresholds.false_discovery_rate`). It is far too high
    where the mirror image also fits the particles themselves, and a search from random orientations gains more from weak
    particles than it loses by others. So the default share is high.

    Parameters
    ----------
    found
        What `score` returned.
    share
        Largest share that fits by chance.

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
    by_chance = thresholds.false_discovery_rate(found["match"].to_numpy(), found["mirrored"].to_numpy())["share"]
    return found["match"].nlargest(int((by_chance <= share).sum())).index


@dataclass(frozen=True, eq=False)
class Comparison:
    """An average beside a known map and its mirror image, both aligned to the average.

    Parameters
    ----------
    known, mirrored
        The known map and its mirror image, rotated and shifted onto the average.
    fsc
        From coarse to fine: ``resolution`` in Å, ``fsc`` with the known map, ``mirrored`` with its mirror image.
    """

    known: Volume
    mirrored: Volume
    fsc: pd.DataFrame

    def __repr__(self) -> str:
        known, mirrored = self.resolutions
        return f"Comparison(as it is: FSC {HALF} at {known:.0f} Å; its mirror image: at {mirrored:.0f} Å)"

    @property
    def resolutions(self) -> tuple[float, float]:
        """Å at which the FSC with the known map first falls to 0.5, and that with its mirror image."""
        return resolution_at(self.fsc, HALF), resolution_at(self.fsc.assign(fsc=self.fsc["mirrored"]), HALF)

    @property
    def resolution(self) -> float:
        """Å at which the FSC with the known map first falls to 0.5."""
        return self.resolutions[0]


def compare(average: Average | Volume, known: Volume, *, mask_diameter: float | None = None) -> Comparison:
    """Align a known map and its mirror image to an average, and compare them.

    This validates an average that was made without a template. `handedness.compare_hands` decides between both hands.

    Parameters
    ----------
    average
        The average, or the map of one.
    known
        The map of the expected structure, at any voxel size and in any cubic box.
    mask_diameter
        Å, of the soft spherical mask for the comparison; that of the average by default, or the box.

    Raises
    ------
    ValueError
        If a map is constant or not a cube.
    """
    fixed, mask = map_and_mask(average)
    diameter = mask_diameter or mask or fixed.extent[0]
    moving = volumes.fit(volumes.resample(known, fixed.voxel_size), fixed.shape[0])
    straight, mirrored = (_aligned(one, fixed, diameter=diameter) for one in (moving, volumes.mirror(moving)))
    curve, other = (correlate(one, fixed, diameter_voxels=diameter / fixed.voxel_size) for one in (straight, mirrored))
    return Comparison(straight, mirrored, curve[["resolution", "fsc"]].assign(mirrored=other["fsc"]))


def map_and_mask(structure: Average | InitialModel | Volume) -> tuple[Volume, float | None]:
    """The map of a structure, and the diameter in Å of the mask that it was made with, if it is known."""
    return (structure, None) if isinstance(structure, Volume) else (structure.volume, structure.record.get("mask"))


def _aligned(moving: Volume, fixed: Volume, *, diameter: float) -> Volume:
    """The moving map where it agrees best with the fixed one, of two alignments up to different radii."""
    tried = []
    for share in (3.0, 5.0):
        # Shells over the diameter: enough to align the particle, and not yet the noise.
        radius = min(share * fixed.extent[0] / diameter, fixed.shape[0] / 2 - 2)
        fine = min(1.5 * radius, fixed.shape[0] / 2 - 2)
        found = alignment.align_map(moving, fixed, radius_cycles=radius, fine_radius_cycles=fine)
        aligned = alignment.apply(moving, found)
        fsc = correlate(aligned, fixed, diameter_voxels=diameter / fixed.voxel_size)["fsc"]
        tried.append((float(fsc.iloc[: int(2 * radius)].mean()), aligned))
    return max(tried, key=lambda one: one[0])[1]
