"""Plans: how a set of subtomograms is looked at: which part of the boxes, through which mask, at what detail, how often.

>>> box, settings = plan(subtomograms, iterations=20)
"""

import numpy as np
import torch

from tomolab import particles
from tomolab.averaging import refinement
from tomolab.averaging.refinement import Settings
from tomolab.subtomograms.dataset import Subtomograms
from tomolab.volumes import distance

STANDS_OUT = 5.0
"""Standard deviations by which the radial mean of a set must stand out of the noise somewhere to show how large it is."""


def plan(
    chosen: Subtomograms,
    *,
    iterations: int = 20,
    starts: int = 2,
    given: bool = False,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    finest: float | None = None,
) -> tuple[int, Settings]:
    """Voxels about the particle that are looked at, and how a set is refined; parameters as in `average`."""
    _check(
        chosen,
        iterations=iterations,
        starts=starts,
        given=given,
        mask_diameter=mask_diameter,
        max_shift=max_shift,
        finest=finest,
    )
    measured = mask_diameter is None
    diameter = _diameter(chosen) if mask_diameter is None else mask_diameter / chosen.voxel_size
    box = min(chosen.box, 2 * round((1.5 * diameter + 4) / 2))
    search = max(1, iterations * 2 // 3)
    return box, Settings(
        radius=max(4.0, 3 * box / diameter),
        finest=min(box / 2 - 1.1, box * chosen.voxel_size / finest if finest else np.inf),
        diameter=min(max(1.2 * diameter, 0.45 * chosen.box), 0.95 * box) if measured else diameter,
        reach=max_shift / chosen.voxel_size if max_shift else chosen.box / 10,
        starts=0 if given else starts,
        search=search,
        local=iterations - search,
    )


def _check(chosen: Subtomograms, *, iterations: int, starts: int, given: bool, **lengths: float | None) -> None:
    if len(chosen) < 4:
        raise ValueError(f"an average in two halves needs at least 4 particles, got {len(chosen)}")
    if chosen.box < 12:
        raise ValueError(f"averaging needs a box of at least 12 voxels, got {chosen.box}")
    if iterations < 2 or starts < 1:
        raise ValueError(f"at least 2 iterations and 1 start are needed, got {iterations} and {starts}")
    if given:
        particles.matrices(chosen.particles)
    extent = chosen.box * chosen.voxel_size
    for name, value in lengths.items():
        if value is not None and not 0 < value <= extent:
            raise ValueError(f"{name} must be over 0 and at most the box, {extent:g} Å, got {value}")


def _diameter(chosen: Subtomograms) -> float:
    """Voxels across which the mean of the unaligned subtomograms stands out of its surroundings by a tenth of its height.

    Where nothing stands out of the noise, nearly the whole box: in a small mask noise soon agrees with noise.
    """
    _, volumes = next(chosen.batches(refinement.FEW))
    mean = torch.from_numpy(volumes.mean(0))
    box = chosen.box
    shell = distance(box).round().long().flatten()
    count = torch.bincount(shell)[: box // 2]
    profile = torch.bincount(shell, weights=mean.flatten().double())[: box // 2] / count
    rim = int(0.38 * box)
    profile = profile - profile[rim:].median()
    scatter = mean.flatten()[(shell >= rim) & (shell < box // 2)].double().std() / count.sqrt()
    if not (profile > STANDS_OUT * scatter)[:rim].any():
        return 0.85 * box
    edge = float((profile > 0.1 * profile.max()).nonzero().max()) + 0.5
    return float(np.clip(2 * edge, 0.35 * box, 0.85 * box))
