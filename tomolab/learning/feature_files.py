"""A table or arrays of another program in (CSV, Parquet, NPZ, NPY), an `Embedding` out: its feature vectors by particle id.

Ids say what belongs to which particle, never the order of the rows, unless the user says so. Nothing is read by
pickle, in which most programs of the field keep their features: `HOW` says how they are saved in another form.

>>> features = read_features("tomotwin.parquet", particles=picks, columns=[str(n) for n in range(32)])
>>> features = read_features("z.npz", ids=picks["particle_id"])         # rows in the order of the table, says the user
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tomolab.io import paths, safe_load
from tomolab.learning.embedding import Embedding

ID, IDS, VECTORS = "particle_id", "ids", "vectors"
TABLES, ARRAYS = (".csv", ".tsv", ".txt", ".parquet"), (".npz", ".npy")
PICKLED = (".pkl", ".pickle", ".p", ".temb", ".tloc", ".tumap", ".joblib", ".pt", ".pth", ".ckpt")
HOW = (
    "save it there in another form: a table (TomoTwin's .temb) by pandas.read_pickle(NAME).to_parquet('features.parquet'), "
    "arrays (cryoDRGN's z.pkl) by numpy.savez('features.npz', ids=IDS, vectors=Z)"
)
FEWEST = 4
"""Columns called alike but for a number that are features unless the user says otherwise."""
DECIMAL_COMMA = r"\s*[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*"


def read_features(
    path: str | Path,
    *,
    ids: str | ArrayLike | None = None,
    columns: Sequence[str] | None = None,
    vectors: str | None = None,
    particles: pd.DataFrame | None = None,
    network: str | None = None,
) -> Embedding:
    """Read the features of particles that another program made.

    Parameters
    ----------
    path
        Table (.csv, .tsv, .txt with a header, .parquet) with a row for each particle, or arrays (.npz, .npy).
    ids
        Name of the column or array of particle ids, by default "particle_id" in a table and "ids" in an .npz; or the ids
        themselves, (n,), which says that the rows are in this order, such as ``ids=table["particle_id"]``.
    columns
        Of a table: names of the columns that are features. By default all but the ids, if they are at least four and called
        alike but for a number, such as 0, 1, 2, ... or z0, z1, z2, ...
    vectors
        Of an .npz: name of the array of features, (n, d); "vectors" by default.
    particles
        Particle table whose particles these are. The result is in its order.
    network
        What made the features; embeddings are compared only where this is the same. The digest of the file by default.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file was saved by pickle or of another kind, ids are missing, repeated or no whole numbers, are not those of the
        particle table, a feature is no finite number, or it is not clear which columns are features.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in PICKLED:
        raise ValueError(f"{path} was saved by pickle, which runs what it reads, and is not opened; {HOW}")
    if suffix not in TABLES + ARRAYS:
        raise ValueError(f"{path} is none of {', '.join(TABLES + ARRAYS)}; {HOW}")
    with safe_load.reading(path, "features"):
        _unused(suffix, columns=columns, vectors=vectors)
        if suffix in TABLES:
            named, found = _from_table(path, ids, columns)
        else:
            named, found = _from_arrays(path, ids, vectors)
        numbers = _ids(named if ids is None or isinstance(ids, str) else ids, len(found))
        whole = Embedding(numbers, found, paths.sha256(path) if network is None else network)
        return whole if particles is None else _matched(whole, particles)


def _unused(suffix: str, *, columns: object, vectors: object) -> None:
    if suffix in ARRAYS and columns is not None:
        raise ValueError("columns has no meaning for arrays; vectors= names the one of features")
    if suffix != ".npz" and vectors is not None:
        raise ValueError(f"vectors has no meaning for a {suffix} file")


def _from_table(path: Path, ids: str | ArrayLike | None, columns: Sequence[str] | None) -> tuple[pd.Series | None, np.ndarray]:
    """Column of ids, None if they are given, and features (n, d)."""
    table = safe_load.read_parquet(path, "features") if path.suffix.lower() == ".parquet" else _text(path)
    named = ids is None or isinstance(ids, str)
    name = str(ID if ids is None else ids) if named else None
    if name is not None and name not in table and name in table.index.names:
        table = table.reset_index()
    table.columns = table.columns.map(str)
    if not table.columns.is_unique:
        raise ValueError(f"columns are repeated: {', '.join(table.columns[table.columns.duplicated()].unique()[:5])}")
    if name is not None and name not in table:
        raise ValueError(
            f"it has no column {name!r} of particle ids, only {_few(table.columns)}. ids= names another, or gives the ids of "
            "the rows in their order, such as ids=table['particle_id']"
        )
    others = [one for one in table if one != name]
    for one in others if columns is None else ():
        _check_form(table[one])
    chosen = _numbered(others) if columns is None else [str(one) for one in columns]
    lacking = [one for one in chosen if one not in table or one == name]
    if lacking or not chosen:
        raise ValueError(f"it has no features {_few(lacking)}; its columns are {_few(table.columns)}")
    return None if name is None else table[name], np.stack([_numbers(table[one]) for one in chosen], axis=1)


def _text(path: Path) -> pd.DataFrame:
    """Table of a text file, whose columns are parted by commas, semicolons or tabs."""
    text = paths.text(safe_load.existing_file(path))
    first = text[: text.find("\n") if "\n" in text else len(text)]
    mark = max(",;\t", key=first.count)
    try:
        rows = csv.reader(io.StringIO(text), delimiter=mark)
        header = next(rows, [])
        width = len(next(rows, header))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if any(_number(name) and not name.strip().lstrip("-").isdigit() for name in header):
        raise ValueError(f"its first line holds numbers, {_few(header)}, where names of columns were expected")
    if len(set(header)) != len(header):
        raise ValueError(f"columns are repeated: {_few(sorted({name for name in header if header.count(name) > 1}))}")
    if width > len(header):
        raise ValueError(f"its rows hold {width} values, and its first line names {len(header)} columns")
    return pd.read_csv(io.StringIO(text), sep=mark, low_memory=False)


def _numbered(names: list[str]) -> list[str]:
    """The names, if they are alike but for a number at their end, as those of features are."""
    stems = {name.rstrip("0123456789") for name in names}
    if len(names) < FEWEST or len(stems) > 1 or not all(name[-1:].isdigit() for name in names):
        raise ValueError(
            f"it is not clear which columns are features: there are {_few(names)}. Say which are, columns=[...]; by default "
            f"all but the ids are, where they are {FEWEST} or more and called alike but for a number, such as z0, z1, z2, ..."
        )
    return names


def _check_form(values: pd.Series) -> None:
    """Refuse decimal commas."""
    first = None if pd.api.types.is_numeric_dtype(values) else next(iter(values.dropna()), None)
    if isinstance(first, str) and re.fullmatch(DECIMAL_COMMA, first):
        raise ValueError(f"the column {values.name!r} has decimal commas, such as {first!r}; save the table with points")


def _numbers(values: pd.Series) -> np.ndarray:
    """A column in single precision, after it is found to hold finite numbers."""
    _check_form(values)
    with np.errstate(over="ignore"):
        found = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan).astype(np.float32)
    bad = len(found) - int(np.isfinite(found).sum())
    if bad:
        raise ValueError(f"{bad} of {len(found)} values in the column {values.name!r} are no finite numbers")
    return found


def _from_arrays(path: Path, ids: str | ArrayLike | None, vectors: str | None) -> tuple[np.ndarray | None, np.ndarray]:
    """Array of ids, None if they are given, and features (n, d)."""
    named = ids is None or isinstance(ids, str)
    if path.suffix.lower() == ".npy":
        if named:
            raise ValueError("a .npy file has no ids; give those of its rows in their order, such as ids=table['particle_id']")
        return None, _matrix(safe_load.read_npy(path), "the array")
    arrays = safe_load.read_npz(path, "features")
    wanted = {"vectors": VECTORS if vectors is None else vectors} | ({"ids": str(IDS if ids is None else ids)} if named else {})
    for parameter, name in wanted.items():
        if name not in arrays:
            raise ValueError(f"it has no array {name!r}, only {_few(arrays)}; {parameter}= names another")
    return arrays[wanted["ids"]] if named else None, _matrix(arrays[wanted["vectors"]], wanted["vectors"])


def _matrix(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} has shape {array.shape} of {array.dtype}, expected features (n, d), all of them numbers")
    with np.errstate(over="ignore"):
        return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


def _ids(given: object, count: int) -> np.ndarray:
    """Particle ids (n,), after they are found to be whole numbers, and as many as there are rows."""
    values = pd.Series(np.asarray(given) if not isinstance(given, pd.Series) else given.to_numpy())
    if len(values) != count:
        raise ValueError(f"there are {len(values)} ids and {count} rows of features")
    if values.isna().any():
        raise ValueError(f"{int(values.isna().sum())} of {count} particle ids are missing")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    whole = np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 2**53)
    if not whole.all() or values.dtype == bool:
        first = values[~whole].iloc[0] if not whole.all() else values.iloc[0]
        raise ValueError(f"{max(1, int((~whole).sum()))} of {count} particle ids are no whole numbers, such as {first!r}")
    return numbers.astype(np.int64)


def _matched(whole: Embedding, particles: pd.DataFrame) -> Embedding:
    """The embedding in the order of a particle table, after both are found to hold the same particles."""
    if ID not in particles:
        raise ValueError(f"particles has no column {ID!r}")
    wanted = particles[ID].to_numpy()
    unknown, lacking = whole.ids[~np.isin(whole.ids, wanted)], wanted[~np.isin(wanted, whole.ids)]
    if len(unknown):
        raise ValueError(
            f"{len(unknown)} of its {len(whole)} ids are not in the particle table, such as {unknown[:5].tolist()}"
        )
    if len(lacking):
        raise ValueError(f"{len(lacking)} of {len(wanted)} particles have no features, such as {lacking[:5].tolist()}")
    return whole.take(wanted)


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip().lower() not in ("nan", "inf", "infinity")


def _few(names: object) -> str:
    texts = [str(name)[:40] for name in names]  # type: ignore[attr-defined]
    return ", ".join(texts[:12]) + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")
