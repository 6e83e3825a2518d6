"""Names of tomograms in lists and in mappings, matched by a rule that is shown; values of mappings by these names.

Programs call one tomogram ``TS_1``, ``TS_1.tomostar``, ``TS_1.mrc`` or ``reconstruction/TS_1_10.00Apx.mrc``.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

Tilts = tuple[float, float] | Mapping[str, tuple[float, float]]
"""(Lowest, highest) tilt in degrees of all tomograms, or of each by name."""
ENDING = re.compile(
    r"\.(?:tomostar|mrcs?|rec|st|ali|preali|map|em|hdf5?|h5|tiff?|xml|mdoc|star|zarr|ome|gz|bz2)$", re.IGNORECASE
)
ADDITION = re.compile(r"_(?:\d+(?:\.\d+)?Apx|rec|full|Vol)$")
"""What Warp (pixel size), IMOD and AreTomo put behind the name of a series."""
NAMELESS = {"", "nan", "none", "null", "na", "n/a", "<na>"}
"""What programs write, in lower case, where a tomogram has no name."""
SHOWN = 20
"""Pairs that a warning names."""


def match_names(names: Iterable[str], there: Iterable[str], *, what: str) -> dict[str, str]:
    """Find for each name of a tomogram the one that is meant among others, as a dict.

    A name that is there means itself. Others are compared without folders, without endings such as .tomostar and .mrc, and
    without additions such as _10.00Apx and _rec. They match where one name alone of each side fits, and a warning says so.

    Parameters
    ----------
    names, there
        Names to look for, such as those of a list of particles, and names that there are.
    what
        What the latter stand in, for messages: ``"tilts="``.

    Raises
    ------
    ValueError
        If a name fits none, or several do. The message lists both sides.
    """
    wanted, known = list(dict.fromkeys(names)), dict.fromkeys(there)
    found = {name: name for name in wanted if name in known}
    rest = [name for name in wanted if name not in found]
    if not rest:
        return found
    ours, theirs = _by_stem(wanted), _by_stem(known)
    pairs: dict[str, str] = {}
    for name in rest:
        fitting = theirs.get(_stem(name), [])
        if len(fitting) == len(ours[_stem(name)]) == 1:
            pairs[name] = fitting[0]
    if len(pairs) < len(rest):
        raise ValueError(_no_match([name for name in rest if name not in pairs], known, what, (ours, theirs)))
    matched = ", ".join(f"{name} is {other}" for name, other in list(pairs.items())[:SHOWN])
    more = f", and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    warnings.warn(
        f"{what}: names of tomograms are compared without folders, endings (.tomostar, .mrc) and additions (_10.00Apx, _rec): "
        f"{matched}{more}",
        stacklevel=2,
    )
    return found | pairs


def nameless(names: pd.Series) -> np.ndarray:
    """Which of these (n,) are missing, or say that there is no name."""
    return (names.isna() | names.astype(str).str.strip().str.lower().isin(NAMELESS)).to_numpy()


def without_endings(path: str) -> str:
    """Name of a tomogram by its file or address: without folders and endings."""
    out = re.split(r"[/\\]", str(path).rstrip("/"))[-1]
    while (shorter := ENDING.sub("", out)) not in ("", out):
        out = shorter
    return out


def _stem(name: str) -> str:
    """Name without folders, endings and additions."""
    out = re.split(r"[/\\]", str(name))[-1]
    while (shorter := ADDITION.sub("", ENDING.sub("", out))) not in ("", out):
        out = shorter
    return out


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(_stem(name), []).append(name)
    return out


def _no_match(
    failed: list[str], known: Iterable[str], what: str, stems: tuple[dict[str, list[str]], dict[str, list[str]]]
) -> str:
    there = sorted(map(str, known))
    message = f"{what} lacks {', '.join(map(str, failed[:5]))}; it has {', '.join(there[:5]) or 'nothing'}"
    for name in failed:
        ours, theirs = (side.get(_stem(name), []) for side in stems)
        if ours and theirs:
            return (
                f"{message}; {', '.join(ours[:5])} and {', '.join(map(str, theirs[:5]))} are alike without folders, endings "
                "and additions, so that it is not clear which belong together"
            )
    return message


def each(values: Any, names: pd.Series, what: str) -> np.ndarray:
    """Value of each row, (n, ...), by the name of its tomogram, where there is one for each, or the one for all."""
    place, different = pd.factorize(names)
    if not len(different):
        return np.zeros((0, 1))
    if not isinstance(values, Mapping):
        return np.array([values] * len(different), dtype=float)[place]
    _all_named(names, what)
    fitting = match_names(different, values, what=f"{what}=")
    return np.array([values[fitting[name]] for name in different], dtype=float)[place]


def tilts_of(tilts: Tilts, names: pd.Series) -> np.ndarray:
    """Lowest and highest tilt of each row, (n, 2), by the name of its tomogram."""
    return each(tilts, names, "tilts").reshape(-1, 2)


def listed_for(listed: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    """Rows of the list of tomograms for each name, in order; a ValueError if one is not there."""
    what = "the list of tomograms"
    _all_named(names, what)
    fitting = match_names(names.unique(), listed.index, what=what)
    return listed.loc[[fitting[name] for name in names]]


def _all_named(names: pd.Series, what: str) -> None:
    missing = int(names.isna().sum())
    if missing:
        raise ValueError(f"{missing} of {len(names)} rows have no name of a tomogram, by which {what} is looked up")
