"""STAR files are read as STAR means them, as starfile reads them, and in seconds."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomolab import io
from tomolab.io.lists.star import parsing

TWO = """
# made by hand

data_general

_rlnOne      001
_rlnTwo      'two words'

data_particles

loop_
_rlnName #1
_rlnCoordinateX #2
001 1.5

007\t2.50
"""


def read(folder: Path, text: str | bytes) -> dict[str, pd.DataFrame]:
    (folder / "a.star").write_bytes(text if isinstance(text, bytes) else text.encode())
    return parsing.blocks(folder / "a.star")


@pytest.mark.parametrize(
    "text",
    [TWO, TWO.replace("\n", "\r\n"), "\ufeff" + TWO[TWO.index("data_") :], TWO.rstrip(), TWO.replace("data_", "  data_")],
)
def test_blocks_are_tables_of_text(tmp_path, text: str) -> None:
    found = read(tmp_path, text)
    assert list(found) == ["general", "particles"]
    assert found["general"].to_dict("list") == {"rlnOne": ["001"], "rlnTwo": ["two words"]}
    assert found["particles"].to_dict("list") == {"rlnName": ["001", "007"], "rlnCoordinateX": ["1.5", "2.50"]}


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("a b", ["a", "b"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ("5'-end it's", ["5'-end", "it's"]),
        ("'it's' 2", ["it's", "2"]),
        ("stack#1.mrcs 2 # the second", ["stack#1.mrcs", "2"]),
        ("'' \"\"", ["", ""]),
        ("' x", ["'", "x"]),
        ("[1,1,0] 1e-3", ["[1,1,0]", "1e-3"]),
        ("\u00e4\u5b57 \u00b5m", ["\u00e4\u5b57", "\u00b5m"]),
        ("nan <NA>", [None, None]),
    ],
)
def test_quotes_and_comments_end_where_star_ends_them(tmp_path, row: str, values: list) -> None:
    found = read(tmp_path, f"data_\n\nloop_\n_one #1\n_two #2\n{row}\n\n{row}\n# the end\n")[""]
    assert [[None if pd.isna(value) else value for value in line] for line in found.to_numpy().tolist()] == [values, values]


def test_a_loop_without_rows_has_its_columns(tmp_path) -> None:
    found = read(tmp_path, "data_a\nloop_\n_one\n_two\n\ndata_b\n_three 3\n")
    assert (list(found["a"]), len(found["a"])) == (["one", "two"], 0)
    assert found["b"].to_dict("list") == {"three": ["3"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_a\nloop_\n_one\n_two\n1 2\n3\n4 5\n", "data_a has 2 columns, but 1 values in row 1: '3'"),
        ("data_a\nloop_\n_one\n_two\n1 2\n3 4 5\n", "data_a has 2 columns, but 3 values in row 1: '3 4 5'"),
        ("data_a\nloop_\n_one\n_two\n1 nan\n3\n", "data_a has 2 columns, but 1 values in row 1: '3'"),
        ("data_a\nloop_\n_one\n1\nloop_\n_two\n_three\n1 2\n", "data_a has 1 columns, but 2 values in row 4: '1 2'"),
        ("data_a\nloop_\n_one\n_one\n1 2\n", "data_a has the columns one twice"),
        ("data_a\n_one 1\ndata_a\n_one 2\n", "there are two blocks data_a"),
        ("data_a\n_one\n", "data_a has a line that is no name with a value: '_one'"),
        ("data_a\n_one 1\nhello\n", "data_a has a line that is neither a name nor a row of a loop: 'hello'"),
        ("data_a\n", "data_a holds nothing"),
        (b"data_a\n_one caf\xe9\n", r"line 2 is not UTF-8 \(byte 0xe9\); save it as UTF-8"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_file_that_was_mended_is_read_anew(tmp_path) -> None:
    with pytest.raises(ValueError, match="in row 0"):
        read(tmp_path, "data_a\nloop_\n_one\n_two\n1\n")
    assert read(tmp_path, "data_a\nloop_\n_one\n_two\n1 2\n")["a"].to_numpy().tolist() == [["1", "2"]]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters="\"'#"), min_size=1, max_size=6)
WORDS = WORDS.filter(lambda word: word not in parsing.MISSING)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(WORDS.filter(lambda word: not word.startswith(("_", "data_", "loop_"))), WORDS, st.floats(-1e6, 1e6)),
        min_size=1,
        max_size=5,
    )
)
def test_starfile_reads_ours_and_we_read_its(tmp_path, rows: list) -> None:
    table = pd.DataFrame(rows, columns=["rlnA", "rlnB", "rlnC"])
    missing = table[["rlnA", "rlnB"]].isin([*parsing.MISSING, "None"]).any(axis=None)
    ours = tmp_path / "ours.star"
    ours.write_text(parsing.text({"particles": table}, version=30001), encoding="utf-8")
    starfile.write({"particles": table}, tmp_path / "theirs.star", overwrite=True, float_format=None)
    for path in (ours, tmp_path / "theirs.star"):
        found = parsing.blocks(path)["particles"]
        np.testing.assert_array_equal(found["rlnC"].astype(float), table["rlnC"])
        if not missing:
            assert found[["rlnA", "rlnB"]].to_numpy().tolist() == table[["rlnA", "rlnB"]].to_numpy().tolist()
    theirs = starfile.read(ours, parse_as_string=["rlnA", "rlnB"])
    if not missing:
        assert theirs[["rlnA", "rlnB"]].to_numpy().tolist() == table[["rlnA", "rlnB"]].to_numpy().tolist()


def test_long_lists_are_read_in_seconds(tmp_path) -> None:
    """Time grows with the rows and no faster: ten times as many take no more than thirty times as long."""
    rng = np.random.default_rng(0)
    took = {}
    for count in (5_000, 50_000):
        columns = [f"_rlnCoordinate{axis} #{place}" for place, axis in enumerate("XYZ", 1)]
        columns += [
            f"_rln{name} #{place}" for place, name in enumerate(("MicrographName", "AngleRot", "AngleTilt", "AnglePsi"), 4)
        ]
        rows = [
            f"{x:.3f} {y:.3f} {z:.3f} TS_{int(x) % 7} {x:.2f} {y:.2f} {z:.2f}" for x, y, z in rng.uniform(0, 180, (count, 3))
        ]
        (tmp_path / f"{count}.star").write_text("data_\n\nloop_\n" + "\n".join([*columns, *rows]) + "\n")
        start = time.perf_counter()
        read = io.read_particles(tmp_path / f"{count}.star", voxel_size=2.0, tilts=(-60, 60))
        took[count] = time.perf_counter() - start
        assert len(read) == count
    assert took[50_000] < 30 * max(took[5_000], 0.01)
