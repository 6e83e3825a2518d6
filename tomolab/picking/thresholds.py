"""Candidates in, picks out: those above a threshold, the better of close neighbours; and how good the picks are.

Candidates are a particle table with the columns ``score``, ``diameter`` (Å) and ``status``: "free", or which mask excludes them
(`tomolab.picking.dog.candidates`).

>>> picks = choose(found, score=5.0)
>>> count_status(found, picks)
>>> evaluate(picks, truth, distance=100.0)["recall"]
0.87
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from tomolab import particles
from tomolab.picking import blobs

WIDTH = 1 / (2 * np.sqrt(3))
"""Standard deviation of the narrower Gaussian over the diameter: a ball of radius r responds most at r / √3."""
FREE = "free"
"""Status of a candidate that no mask excludes."""


def choose(
    found: pd.DataFrame, *, threshold: float = 3.0, score: float | None = None, distance: float | None = None
) -> pd.DataFrame:
    """Choose picks from candidates: free ones above a threshold, and of close neighbours the better.

    Parameters
    ----------
    found
        What `candidates` returned.
    threshold
        t in the lowest accepted score ``m + t (M - m) / 20``, between the worst peak m (0, the background, if all are above it)
        and the best M; 0 accepts all peaks, 20 only the best. 3 was best in Pei et al. In a range of diameters the score grows
        with the size too, and small particles need a lower one.
    score
        The lowest accepted score, instead of a threshold.
    distance
        Å, the least between two picks; by default twice the narrower Gaussian of the better one, 0.58 of its diameter, as in
        Pei et al.

    Returns
    -------
    DataFrame
        Particle table, best first, without ``status``.

    Raises
    ------
    ValueError
        If the table lacks a column of candidates, or `threshold` is not within 0 to 20.
    """
    _require(found)
    if not 0 <= threshold <= 20:
        raise ValueError(f"threshold must lie between 0 (all peaks) and 20 (only the best), got {threshold}")
    free = found[found["status"] == FREE]
    scores = free["score"].to_numpy()
    least = _least(scores, threshold) if score is None else score
    free = free[scores >= least].sort_values("score", ascending=False, kind="stable")
    gap = 2 * WIDTH * free["diameter"].to_numpy() if distance is None else distance
    kept = free.iloc[blobs.separated(particles.positions(free), gap)].drop(columns="status")
    return particles.check(kept.assign(particle_id=np.arange(len(kept))))


def count_status(found: pd.DataFrame, picks: pd.DataFrame) -> pd.DataFrame:
    """Count the candidates that were picked, and those that were not by the reason.

    Parameters
    ----------
    found
        What `candidates` returned.
    picks
        What `choose` returned for it.

    Returns
    -------
    DataFrame
        By status, how many ``peaks`` there are in all, and how many of them score at least as much as the worst pick: "picked",
        "near a better one", "below the threshold", and those of the masks.

    Raises
    ------
    ValueError
        If the table lacks a column of candidates.
    """
    _require(found)
    least = picks["score"].min() if len(picks) else np.inf
    position = ["tomogram", "z", "y", "x"]
    picked = pd.MultiIndex.from_frame(found[position]).isin(pd.MultiIndex.from_frame(picks[position]))
    free = found["status"] == FREE
    low = found["score"] < least
    status = np.select(
        [picked & free, free & low, free], ["picked", "below the threshold", "near a better one"], found["status"]
    )
    table = pd.DataFrame({"status": status, "peaks": 1, "as good as picks": ~low}).groupby("status", sort=False).sum()
    return table.astype(int).sort_values("as good as picks", ascending=False, kind="stable")


def false_discovery_rate(scores: np.ndarray, noise: np.ndarray) -> pd.DataFrame:
    """How many of the picks above each score noise alone would give, and the share of them.

    Parameters
    ----------
    scores, noise
        Scores (n,), and those (m,) of the same number of trials in nothing but noise.

    Returns
    -------
    DataFrame
        From the highest score to the lowest: ``score``, ``picks`` that score as much or more, how many of them ``noise`` alone
        would give, and their ``share``, which never falls.
    """
    scores, noise = np.sort(scores)[::-1], np.sort(noise)[::-1]
    picks = np.arange(1, len(scores) + 1)
    above = np.searchsorted(-noise, -scores, side="right")
    share = np.maximum.accumulate(np.minimum(above / picks, 1.0))
    return pd.DataFrame({"score": scores, "picks": picks, "noise": above, "share": share})


def evaluate(picks: pd.DataFrame, truth: pd.DataFrame, *, distance: float) -> dict[str, Any]:
    """Compare picks with the true particles: one to one, closest pairs first, within each tomogram.

    Parameters
    ----------
    picks, truth
        Particle tables.
    distance
        Å, the largest distance of a pick from its particle.

    Returns
    -------
    dict
        ``precision`` (share of picks that are particles), ``recall`` (share of particles that are picked), ``f1`` (their
        harmonic mean), and ``matched``: a DataFrame with ``pick_id``, ``truth_id`` and ``distance`` in Å.

    Raises
    ------
    ValueError
        If `distance` is not positive, or there is no true particle.
    """
    if not distance > 0:
        raise ValueError(f"distance must be a positive number of Å, got {distance}")
    if len(truth) == 0:
        raise ValueError("there are no true particles to compare the picks with")
    pairs = [_pairs(group, truth[truth["tomogram"] == name], distance) for name, group in picks.groupby("tomogram", sort=False)]
    columns = ["pick_id", "truth_id", "distance"]
    matched = pd.DataFrame([pair for group in pairs for pair in group], columns=columns)
    matched = matched.astype({"pick_id": "int64", "truth_id": "int64", "distance": float})
    precision = len(matched) / len(picks) if len(picks) else 0.0
    recall = len(matched) / len(truth)
    f1 = 2 * precision * recall / (precision + recall) if len(matched) else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "matched": matched}


def _least(scores: np.ndarray, threshold: float) -> float:
    """Lowest accepted score of free candidates."""
    if len(scores) == 0:
        return 0.0
    worst, best = min(float(scores.min()), 0.0), float(scores.max())
    return worst + threshold * (best - worst) / 20


def _require(found: pd.DataFrame) -> None:
    missing = [name for name in ("score", "diameter", "status") if name not in found]
    if missing:
        raise ValueError(f"candidates have the columns score, diameter and status; there is no {', '.join(missing)}")


def _pairs(picks: pd.DataFrame, truth: pd.DataFrame, distance: float) -> list[tuple[int, int, float]]:
    if len(truth) == 0:
        return []
    near = KDTree(particles.positions(picks)).sparse_distance_matrix(
        KDTree(particles.positions(truth)), distance, output_type="ndarray"
    )
    picked, true = picks["particle_id"].to_numpy(), truth["particle_id"].to_numpy()
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for i, j, gap in np.sort(near, order="v"):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((int(picked[i]), int(true[j]), float(gap)))
    return pairs
