"""Takes some subtomograms, such as a cluster, and others set apart; gives an average, and which of the others it predicts.

Pieces of membrane and empty solvent also give averages. But subtomograms that had no part in the average of a particle fit it
better than they fit its mirror image, which has the same size and density and does not exist in the cell.

>>> found = validate_cluster(subtomograms, ids, apart=others, seed=1)
>>> found.predicted
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tomolab.averaging import gold_standard, initial_model, matching
from tomolab.averaging.half_maps import Average
from tomolab.averaging.initial_model import InitialModel
from tomolab.particles import as_ids
from tomolab.subtomograms.dataset import Subtomograms

LOOSE = 0.9
"""Share of chance fits, as `matching.select` estimates it, among those that make the second average."""
FEWEST = 9
"""Subtomograms that a second average needs; if fewer fit, the given ones make it."""


@dataclass(frozen=True, eq=False)
class ClusterValidation:
    """An average that grew from some subtomograms, and what it predicts.

    Parameters
    ----------
    models
        Initial models of the given subtomograms, and of those that fit their average.
    first
        Average of the given subtomograms.
    average
        Average of those that fit the first one, from random orientations again.
    scores
        By particle id, of those set apart: ``match`` and ``mirrored``, as in `matching.score`.
    """

    models: tuple[InitialModel, InitialModel]
    first: Average
    average: Average
    scores: pd.DataFrame

    @property
    def predicted(self) -> pd.Index:
        """Ids of those set apart that fit the average, best first; at most half of them fit by chance."""
        return matching.select(self.scores, share=0.5)

    def __repr__(self) -> str:
        of = f"{len(self.average.particles)} particles at {self.average.resolution:.0f} Å"
        return f"ClusterValidation(average of {of}; it predicts {len(self.predicted)} of {len(self.scores)} set apart)"


def validate_cluster(
    subtomograms: Subtomograms,
    ids: Any,
    *,
    apart: Any,
    seed: int,
    among: Any = None,
    starts: int = 4,
    search_iterations: int = 30,
    iterations: int = 20,
    resolution: float = 60.0,
    progress: bool = True,
    device: str | None = None,
    client: Any = None,
) -> ClusterValidation:
    """Average some subtomograms and those like them, and compare the average with others that had no part in it.

    The given ones are averaged from random orientations. All but those set apart are compared with that average, and those that
    fit are averaged from random orientations again. Then those set apart are compared with the result and its mirror image.

    Parameters
    ----------
    subtomograms
        In memory or on disk.
    ids
        The particles to begin with, such as those of a cluster.
    apart
        Ids of particles for the test; none may be among `ids`.
    seed
        Of all random orientations and halves.
    among
        Ids of the particles that are compared with the first average; by default all that are not set apart.
    starts, search_iterations
        Searches for the first structure from random orientations, and iterations of each; half as many searches for the second.
    iterations
        Of the first average; twice as many of the second.
    resolution
        Å, from which the halves of the second average are refined, and of the comparisons.
    progress, device, client
        As in `averaging.average`.

    Raises
    ------
    ValueError
        If ids are unknown, the two sets overlap, or an argument is out of range.
    """
    ids, apart, seen = (
        pd.Index(as_ids(given, subtomograms.ids)) for given in (ids, apart, subtomograms.ids if among is None else among)
    )
    both = ids.intersection(apart)
    if len(both):
        raise ValueError(f"{len(both)} particles, such as {both[0]}, are in the cluster and set apart: a test needs others")
    for known in ids, apart:
        subtomograms.choose(known)
    where: dict[str, Any] = {"progress": progress, "device": device, "client": client}
    search = {"iterations": search_iterations} | where
    models = [initial_model.find(subtomograms, ids, seed=seed, starts=starts, **search)]
    first = gold_standard.average(subtomograms, ids, seed=seed, start=models[0], iterations=iterations, **where)
    rest = seen.difference(apart)
    scores = matching.score(subtomograms, first, rest, resolution=resolution, **where)
    fitting = matching.select(scores, share=LOOSE)
    again = fitting if len(fitting) >= FEWEST else ids
    models.append(initial_model.find(subtomograms, again, seed=seed + 1, starts=max(1, starts // 2), **search))
    options: dict[str, Any] = {"start": models[1], "start_resolution": resolution, "iterations": 2 * iterations}
    average = gold_standard.average(subtomograms, again, seed=seed, **options, **where)
    tested = matching.score(subtomograms, average, apart, resolution=resolution, **where)
    return ClusterValidation((models[0], models[1]), first, average, tested)
