"""Takes subtomograms and several references; gives the log-likelihood and the poses of each subtomogram under each reference.

All references are searched with little detail; only for those that can still be the best one are the poses refined with all
detail. A subtomogram is only scored against a reference that does not contain it (`reconstruction.make_references`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tomolab import rotations
from tomolab.averaging import alignment, refinement
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.reconstruction import References, shell_index
from tomolab.parallel import Workers

SEARCH_CYCLES = 4.0
"""Finest detail of the exhaustive search, in cycles per `SEARCH_BOX` voxels; all detail counts when poses are refined."""
SEARCH_BOX = 14
CANDIDATES = 4
"""References, the best by the exhaustive search, for which the poses of a subtomogram are refined."""
BEHIND = 8.0
"""Log-likelihood by which a reference may fall behind the best one of the exhaustive search to remain a candidate."""
KEEP, STEPS = 3, 2
"""Poses of a subtomogram that are kept for each reference, and steps by which they are refined."""
NOT_SCORED = -1e30
"""Log-likelihood of a subtomogram under references other than its candidates; finite, because all candidates may be lost."""


@dataclass(frozen=True)
class Boxes:
    """Coefficients of subtomograms, with all and with little detail, and the fold of each."""

    data: Coefficients
    coarse: Coefficients
    fold: Tensor

    @classmethod
    def of(cls, data: Coefficients, fold: Tensor) -> "Boxes":
        """Subtomograms in these folds."""
        return cls(data, data.inside(SEARCH_CYCLES * data.box / SEARCH_BOX), fold)

    def take(self, rows: Tensor) -> "Boxes":
        """Some of them."""
        return Boxes(self.data.take(rows), self.coarse.take(rows), self.fold[rows])

    def __len__(self) -> int:
        return len(self.fold)


class Comparison:
    """Compares subtomograms with references by `workers`, under noise of a variance in each shell and a prior of shifts."""

    def __init__(
        self, boxes: Boxes, *, noise: Tensor, max_shift_voxels: float, generator: torch.Generator, workers: Workers
    ) -> None:
        variance = noise[shell_index(boxes.data)]
        self.prior: dict[str, Any] = {"noise": variance, "shift_sigma_voxels": max_shift_voxels / 2}
        self.coarse_prior = self.prior | {"noise": variance[: len(boxes.coarse.points)]}
        self.shifts = refinement.search_shifts(boxes.coarse, max_shift_voxels)[0]
        self.near_shifts = refinement.near_shifts(boxes.coarse)
        self.generator, self.workers = generator, workers

    def random_poses(self, count: int) -> Poses:
        """Poses of so many subtomograms under a reference, before any comparison."""
        return alignment.random_poses(count, KEEP, generator=self.generator)

    def score(
        self, boxes: Boxes, references: Sequence[References], poses: Sequence[Poses], *, asked: Tensor, near: bool
    ) -> Tensor:
        """Log-likelihood (n, references) of boxes under the references they are asked for; puts their `poses` in place.

        `asked` (n, references) is a mask. `near` tries only shifts near those of the best of the `poses`.
        """
        evidence = torch.full(asked.shape, NOT_SCORED, device=asked.device)
        for number, (found, reference) in enumerate(zip(poses, references, strict=True)):
            rows = asked[:, number].nonzero()[:, 0]
            shifts = found.shifts[rows, :1] + self.near_shifts if near else self.shifts.expand(len(rows), -1, -1)
            found.put(rows, self._search(boxes, rows, reference, shifts))
            evidence[rows, number] = found.scores[rows].logsumexp(1)
        best = _largest(evidence, CANDIDATES) & (evidence > evidence.amax(1, keepdim=True) - BEHIND)
        for number, (found, reference) in enumerate(zip(poses, references, strict=True)):
            rows = best[:, number].nonzero()[:, 0]
            found.put(rows, self._refine(boxes, rows, reference, found.take(rows)))
            evidence[rows, number] = found.scores[rows].logsumexp(1)
        return evidence.where(best, NOT_SCORED)

    def _search(self, boxes: Boxes, rows: Tensor, reference: References, shifts: Tensor) -> Poses:
        turns = rotations.random(refinement.ROTATIONS, self.generator, device=rows.device)

        def job(fold: int, at: Tensor) -> dict[str, Any]:
            data = boxes.coarse.take(rows[at])
            return {"grid": reference.grids[fold][0], "data": data, "turns": turns, "shifts": shifts[at]} | self.coarse_prior

        return self._by_fold(boxes.fold[rows], _search_block, job)

    def _refine(self, boxes: Boxes, rows: Tensor, reference: References, poses: Poses) -> Poses:
        def job(fold: int, at: Tensor) -> dict[str, Any]:
            data = boxes.data.take(rows[at])
            return {"grids": reference.grids[fold], "data": data, "poses": poses.take(at)} | self.prior

        return self._by_fold(boxes.fold[rows], _refine_block, job)

    def _by_fold(
        self, folds: Tensor, work: Callable[[dict[str, Any]], Poses], job: Callable[[int, Tensor], dict[str, Any]]
    ) -> Poses:
        """Poses of subtomograms in these folds, by the workers, a block of a fold at a time."""
        poses, blocks = self.random_poses(len(folds)), refinement.blocks(folds)
        jobs = (job(fold, some) for fold, some in blocks)
        for (_, some), found in zip(blocks, self.workers.each(work, jobs, home=folds.device), strict=True):
            poses.put(some, found)
        return poses


def _search_block(job: dict[str, Any]) -> Poses:
    return alignment.exhaustive_search(job.pop("grid"), job.pop("data"), keep=KEEP, **job)


def _refine_block(job: dict[str, Any]) -> Poses:
    return alignment.refine_poses(job.pop("grids"), job.pop("data"), job.pop("poses"), steps=STEPS, **job)


def _largest(values: Tensor, count: int) -> Tensor:
    """Whether each of the values (n, k) is among the `count` largest of its row."""
    best = values.topk(min(count, values.shape[1]), dim=1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter(1, best, True)
