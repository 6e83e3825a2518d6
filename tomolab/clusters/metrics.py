"""Labels and true classes in; how well they agree out, in all and class by class; particles in no cluster (-1) are left out.

>>> agreement(labels, truth)            # {"ari": ..., "homogeneity": ..., "completeness": ..., "purity": ..., "clustered": ...}
>>> by_class(labels, truth)             # which cluster found which class, and how well
"""

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, completeness_score, homogeneity_score

from tomolab.learning.metrics import purity


def agreement(labels: pd.Series, truth: pd.Series) -> dict[str, float]:
    """How well clusters agree with the true classes; 1 is perfect in every number.

    Parameters
    ----------
    labels
        As everywhere in `tomolab.clusters`.
    truth
        Class of each particle, indexed by particle id; may know more particles than `labels`.

    Returns
    -------
    dict
        ``ari``: adjusted Rand index (Hubert and Arabie 1985), 0 for a chance partition. ``homogeneity`` and
        ``completeness`` (Rosenberg and Hirschberg 2007): each cluster holds one class; each class lies in one cluster.
        ``purity``: share of particles that belong to the commonest class of their cluster; it rises with more clusters.
        These four are of the particles in clusters; ``clustered`` is their share of all.

    Raises
    ------
    ValueError
        If truth does not know some of the particles, an id is repeated, or no particle is in a cluster.
    """
    found, true = _aligned(labels, truth)
    return {
        "ari": float(adjusted_rand_score(true, found)),
        "homogeneity": float(homogeneity_score(true, found)),
        "completeness": float(completeness_score(true, found)),
        "purity": purity(true, found),
        "clustered": len(found) / len(labels),
    }


def by_class(labels: pd.Series, truth: pd.Series) -> pd.DataFrame:
    """Which cluster found which class: for every class the cluster with the highest F1.

    Parameters
    ----------
    labels, truth
        As in `agreement`, which raises the same errors.

    Returns
    -------
    DataFrame
        Indexed by class: ``size``, the ``cluster`` that found it, ``recall`` (share of the class in this cluster, particles
        in no cluster counted as missed), ``precision`` (share of the class in the cluster) and ``f1``, their harmonic mean.
        One cluster may be the best of two classes: then it mixes them.
    """
    _aligned(labels, truth)
    counts = pd.crosstab(truth.loc[labels.index].to_numpy(), labels.to_numpy())
    size = counts.sum(axis=1)
    counts = counts.loc[:, counts.columns != -1]
    found = counts.sum(axis=0)
    f1 = 2 * counts.div(np.add.outer(size.to_numpy(), found.to_numpy()))
    best, rows = f1.to_numpy().argmax(axis=1), np.arange(len(f1))
    out = pd.DataFrame({"size": size, "cluster": counts.columns.to_numpy()[best]}, index=size.index.rename("class"))
    for name, table in (("recall", counts.div(size, axis=0)), ("precision", counts.div(found, axis=1)), ("f1", f1)):
        out[name] = table.to_numpy()[rows, best]
    return out


def _aligned(labels: pd.Series, truth: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Turn both into integer codes, in the order of those of `labels` that are in a cluster."""
    for name, given in (("labels", labels), ("truth", truth)):
        if not given.index.is_unique:
            raise ValueError(
                f"{name} must have one entry per particle id, but {given.index.duplicated().sum()} ids are repeated"
            )
    missing = labels.index.difference(truth.dropna().index)
    if len(missing):
        raise ValueError(f"truth is unknown for {len(missing)} of {len(labels)} particles, such as {missing[:5].tolist()}")
    if labels.empty:
        raise ValueError("there are no labels to compare")
    # Text labels, such as those of another program, are all clusters.
    held = labels[labels != -1]
    if held.empty:
        raise ValueError(f"none of {len(labels)} particles is in a cluster (all are -1)")
    return pd.factorize(held)[0], pd.factorize(truth.loc[held.index])[0]
