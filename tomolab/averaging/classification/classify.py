"""Takes subtomograms of several structures; gives the class of each and a map of each class, without a reference.

All subtomograms are first refined as if they were one structure. Then structures are divided in two, first the one whose
subtomograms two explain better by most, until there are as many as asked for. All are scored and made again in turn
(`split_merge`). The number of classes is given; `discovery` finds it.

>>> found = classify(subtomograms, chosen.ids, classes=2, seed=1)
>>> averaging.average(subtomograms, found.labels.index[found.labels == 0], seed=1, start=found.volumes[0])
"""

from collections.abc import Callable
from typing import Any

from tomolab import parallel
from tomolab.averaging.classification.discovery import Classification, classes_of, prepare
from tomolab.averaging.classification.split_merge import MIN_PARTICLES
from tomolab.averaging.refinement import Monitor
from tomolab.jobs import Progress, reporting
from tomolab.parallel import Workers
from tomolab.subtomograms.dataset import Subtomograms


def classify(
    subtomograms: Subtomograms,
    ids: Any = None,
    *,
    seed: int,
    classes: int = 2,
    iterations: int = 6,
    mask_diameter: float | None = None,
    max_shift: float | None = None,
    progress: bool | Callable[[Progress], Any] = True,
    stop: Callable[[], bool] | None = None,
    device: str | None = None,
    client: Any = None,
) -> Classification:
    """Divide subtomograms among structures that are found on the way.

    Parameters
    ----------
    seed
        Of all random orientations and folds.
    classes
        How many structures.
    iterations
        How often all subtomograms are scored against all structures.
    stop
        Asked after every iteration; when it answers True, the present result is returned, perhaps with fewer classes.
    subtomograms, ids, mask_diameter, max_shift, progress, device, client
        As in `averaging.average`; the map in `progress` is of the class that was made last, or of the largest.

    Raises
    ------
    ValueError
        If ids are unknown, there are less than 2 classes, fewer than 8 particles for each, or a length is out of range.
    """
    chosen = subtomograms if ids is None else subtomograms.choose(ids)
    if classes < 2 or len(chosen) < classes * MIN_PARTICLES:
        raise ValueError(
            f"a classification needs 2 classes or more with {MIN_PARTICLES} particles each, "
            f"got {classes} for {len(chosen)} particles"
        )
    workers = Workers(parallel.active(client), device)
    work, (diameter,) = prepare(
        chosen, [chosen.ids], seed=seed, mask_diameter=mask_diameter, max_shift=max_shift, workers=workers
    )
    total = classes + iterations
    with reporting(progress, total, "classification") as report:
        monitor = Monitor(report, stop, total, work.data.box * chosen.voxel_size)
        monitor.after(1, "structure 1", work.start(work.every, diameter))
        work.score()
        for number in range(2, classes + 1):
            if not monitor.stopped:
                monitor.after(number, f"structure {number}", work.add())
        while monitor.count < total and not monitor.stopped:
            monitor.after(monitor.count + 1, "classification", work.iterate(change=False))
    return classes_of(work, chosen)
