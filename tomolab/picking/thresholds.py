"""Choosing among candidates: above a threshold, apart from each other; what became of the rest, and how good the picks are.

Candidates are a particle table with the columns ``score``, ``diameter`` (Å) and ``fate``: "free", or which mask took them
(`tomolab.picking.dog.candidates`). Choosing takes a moment, so that a threshold can be turned while looking.

>>> picks = choose(found, score=5.0)
>>> fates(found, picks)
>>> score(picks, truth, distance=100.0)["recall"]
0.87
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from tomolab import particles
from tomolab.picking import blobs

WIDTH = 1 / (2 * np.sqrt(3))
"""Standard deviation of the narrower Gaussian over the diameter: a ball of radius r answers most at r / √3."""
FREE = "free"
"""Fate of a candidate that no mask took."""


def choose(
    found: pd.DataFrame, *, threshold: float = 3.0, score: float | None = None, distance: float | None = None
) -> pd.DataFrame:
    """Choose picks from candidates: those that no mask took, above a threshold, and of close neighbours the better.

    Parameters
    ----------
    found
        What `candidates` returned.
    threshold
        As in `difference_of_gaussians`.
    score
        Instead of it, the lowest accepted score.
    distance
        Å, as in `difference_of_gaussians`.

    Returns
    -------
    DataFrame
        Particle table, best first, without ``fate``.

    Raises
    ------
    ValueError
        If the table lacks a column of candidates.
    """
    _require(found)
    free = found[found["fate"] == FREE]
    scores = free["score"].to_numpy()
    least = _least(scores, threshold) if score is None else score
    free = free[scores >= least].sort_values("score", ascending=False, kind="stable")
    reach = 2 * WIDTH * free["diameter"].to_numpy() if distance is None else distance
    kept = free.iloc[blobs.apart(particles.positions(free), reach)].drop(columns="fate")
    return particles.check(kept.assign(particle_id=np.arange(len(kept))))


def fates(found: pd.DataFrame, picks: pd.DataFrame) -> pd.DataFrame:
    """Count what became of the candidates.

    Parameters
    ----------
    found
        What `candidates` returned.
    picks
        What `choose` made of it.

    Returns
    -------
    DataFrame
        By fate, how many ``peaks`` there are in all, and how many of them score at least as much as the worst pick: "picked",
        "near a better one", "below the threshold", and the masks'.

    Raises
    ------
    ValueError
        If the table lacks a column of candidates.
    """
    _require(found)
    least = picks["score"].min() if len(picks) else np.inf
    picked = _keys(found).isin(_keys(picks))
    free = found["fate"] == FREE
    low = found["score"] < least
    told = np.select([picked & free, free & low, free], ["picked", "below the threshold", "near a better one"], found["fate"])
    table = pd.DataFrame({"fate": told, "peaks": 1, "as good as picks": ~low}).groupby("fate", sort=False).sum()
    return table.astype(int).sort_values("as good as picks", ascending=False, kind="stable")


def false_share(found: pd.DataFrame, inverted: pd.DataFrame, *, distance: float | None = None) -> pd.DataFrame:
    """Estimate which share of picks is noise, from what is found in the tomogram of inverted contrast.

    Noise is as often dark as bright, so peaks of the inverted tomogram tell how many peaks of a score noise makes. What is
    truly dark counts as noise: the dark rims that the CTF and the missing wedge leave about particles, membranes and gold. So
    in a crowded tomogram the estimate is too high rather than too low, and of no use for a range of diameters; exclude gold in
    both. In simulated tomograms (SNR 0.01 to 0.1, one diameter) 0.15, 0.17, 0.15 and 0.41 were estimated where 0.24, 0.27, 0.30
    and 0.39 of 100 picks were false: what is near a particle but not on it counts as false and is not noise.

    Parameters
    ----------
    found, inverted
        Candidates in the tomogram, and with the same settings in ``volumes.invert(tomogram)``.
    distance
        Å, as in `choose`.

    Returns
    -------
    DataFrame
        From the highest score to the lowest: ``score``, ``picks`` that score as much or more, how many ``noise`` alone would
        give, and their ``share``, which only grows.
    """
    return shares(*(choose(table, score=-np.inf, distance=distance)["score"].to_numpy() for table in (found, inverted)))


def shares(scores: np.ndarray, noise: np.ndarray) -> pd.DataFrame:
    """Which share of those above a score is noise, from scores of the same number of trials of nothing but noise.

    Parameters
    ----------
    scores, noise
        Of what is looked at, and of what cannot be real, (n,) and (m,).

    Returns
    -------
    DataFrame
        As in `false_share`.
    """
    ours, theirs = np.sort(scores)[::-1], np.sort(noise)[::-1]
    picks = np.arange(1, len(ours) + 1)
    above = np.searchsorted(-theirs, -ours, side="right")
    share = np.maximum.accumulate(np.minimum(above / picks, 1.0)) if len(ours) else np.empty(0)
    return pd.DataFrame({"score": ours, "picks": picks, "noise": above, "share": share})


def apart(table: pd.DataFrame, *, distance: float, by: str = "score") -> pd.DataFrame:
    """Leave of particles that are closer than `distance`, within each tomogram, the one with the highest value of a column.

    Parameters
    ----------
    table
        Particle table, such as one cluster of an oversampled tomogram.
    distance
        Å.
    by
        Column to choose by.

    Returns
    -------
    DataFrame
        The rows that are left, in their order.

    Raises
    ------
    ValueError
        If the column is missing or holds what is not a number, or the distance is not positive.
    """
    if not distance > 0:
        raise ValueError(f"distance must be a positive number of Å, got {distance}")
    if by not in table:
        raise ValueError(f"there is no column {by!r} to choose by; there are {', '.join(map(str, table.columns))}")
    values = pd.to_numeric(table[by], errors="coerce").to_numpy(dtype=float)
    if np.isnan(values).any():
        raise ValueError(f"column {by!r}: {int(np.isnan(values).sum())} of {len(values)} particles have no number to choose by")
    order = np.argsort(-values, kind="stable")
    names = table["tomogram"].to_numpy()[order]
    kept = []
    for name in pd.unique(names):
        rows = order[names == name]
        kept.append(rows[blobs.apart(particles.positions(table.iloc[rows]), distance)])
    return table.iloc[np.sort(np.concatenate(kept))] if kept else table


def score(picks: pd.DataFrame, truth: pd.DataFrame, *, distance: float) -> dict[str, Any]:
    """Hold picks against the true particles: one to one, closest pairs first, within each tomogram.

    Parameters
    ----------
    picks, truth
        Particle tables.
    distance
        Å, the most that a pick may lie from its particle.

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
        raise ValueError("there are no true particles to hold the picks against")
    pairs = [_pairs(group, truth[truth["tomogram"] == name], distance) for name, group in picks.groupby("tomogram", sort=False)]
    columns = ["pick_id", "truth_id", "distance"]
    matched = pd.DataFrame([pair for group in pairs for pair in group], columns=columns)
    matched = matched.astype({"pick_id": "int64", "truth_id": "int64", "distance": float})
    precision = len(matched) / len(picks) if len(picks) else 0.0
    recall = len(matched) / len(truth)
    f1 = 2 * precision * recall / (precision + recall) if len(matched) else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "matched": matched}


def _least(scores: np.ndarray, threshold: float) -> float:
    """Lowest accepted score, of those that a mask left."""
    if len(scores) == 0:
        return 0.0
    worst, best = min(float(scores.min()), 0.0), float(scores.max())
    return worst + threshold * (best - worst) / 20


def _require(found: pd.DataFrame) -> None:
    missing = [name for name in ("score", "diameter", "fate") if name not in found]
    if missing:
        raise ValueError(f"candidates have the columns score, diameter and fate; there is no {', '.join(missing)}")


def _keys(table: pd.DataFrame) -> pd.Series:
    """A tomogram and place for each particle, to find it again by."""
    return pd.Series(list(zip(table["tomogram"], table["z"], table["y"], table["x"], strict=True)), dtype=object)


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
