"""A filtered copy of a user's own list keeps every other byte, and finds a particle's row whatever became of the particle."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomolab import io, particles
from tomolab.io.lists import filtering
from tomolab.io.lists.star import parsing
from tomolab.subtomograms import Subtomograms, join

COLUMNS = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnClassNumber", "rlnComment"]
BLANKS = st.text(" \t", min_size=1, max_size=4)
ODD = st.sampled_from(["it's", "a#b", "'5'end x y'", "\"a 'b' c\"", "x'"])
"""What not every reader of STAR files understands."""
TEXTS = st.sampled_from(["TS_01", "001", '"two words"', "'so so'", "caf\u00e9", "-0.50", "1e-3", "d/e.mrc", '""'])
NUMBERS = st.sampled_from(["1", "007.50", "-3.", "+1.25e+02", "12.000000", "0.1"])
BREAKS = st.sampled_from(["\n", "\r\n"])


@st.composite
def stars(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A STAR file as strange as they come, and the lines of its particles."""
    end, texts = draw(BREAKS), draw(st.sampled_from([TEXTS, st.one_of(TEXTS, ODD)]))
    rows = [
        draw(st.sampled_from(["", "  "]))
        + draw(BLANKS).join([draw(texts), *(draw(NUMBERS) for _ in range(3)), str(draw(st.integers(1, 30))), draw(texts)])
        + draw(st.sampled_from(["", " ", " # a comment"]))
        + end
        for _ in range(draw(st.integers(1, 7)))
    ]
    gaps = [draw(st.sampled_from(["", end, f"  {end}", f"# between{end}"])) for _ in rows]
    # Between the names of the columns and the values starfile takes empty lines, and no comments that end in nothing.
    body = "".join(row + gap for row, gap in zip(rows, gaps, strict=True))
    others = [
        f"# version 30001{end}{end}data_optics{end}{end}loop_{end}_rlnOpticsGroup #1{end}_rlnVoltage{end}1   300.0{end}{end}",
        f"data_general{end}_rlnTomoSubTomosAre2DStacks 0{end}_other 'a b'{end}{end}",
    ]
    head = "".join(f"_{name}{draw(st.sampled_from(['', f' #{number}']))}{end}" for number, name in enumerate(COLUMNS, start=1))
    name = draw(st.sampled_from(["particles", "", "images"]))
    table = f"data_{name}{end}{end}loop_{end}{head}{draw(st.sampled_from(['', end]))}{body}{draw(st.sampled_from(['', end]))}"
    parts = [*draw(st.permutations(others)), table]
    if draw(st.booleans()):
        parts = [parts[0], table, parts[1]]
    code = draw(st.sampled_from(["utf-8", "latin-1"]))
    data = "".join(parts).encode(code)
    if draw(st.booleans()):
        data = data.rstrip()
    return data, [row.encode(code) for row in rows]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=stars(), data=st.data())
def test_what_is_kept_of_a_star_file_is_its_bytes(tmp_path: Path, made: tuple[bytes, list[bytes]], data: st.DataObject) -> None:
    source, rows = made
    (tmp_path / "a.star").write_bytes(source)
    keep = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True))
    result = io.filter_particles(tmp_path / "a.star", keep, tmp_path / "b.star")
    copy = (tmp_path / "b.star").read_bytes()
    assert (result.kept, result.dropped) == (len(keep), len(rows) - len(keep))
    # Without its particles, the copy is the source without its particles.
    found, left = filtering.lines_of(tmp_path / "a.star"), filtering.lines_of(tmp_path / "b.star")
    assert [left.lines[n].strip() for n in left.rows] == [rows[n].strip() for n in sorted(keep)]
    assert [left.lines[n] for n in left.rows] == [found.lines[found.rows[n]] for n in sorted(keep)]
    others = [set(range(len(one.lines))) - set(one.rows.tolist()) for one in (found, left)]
    assert [found.lines[n] for n in sorted(others[0])] == [left.lines[n] for n in sorted(others[1])]
    assert (copy == source) == (len(keep) == len(rows))
    if b"\xe9" in source:
        return
    readers = [parsing.blocks]
    if not any(odd in source for odd in (b"it's", b"a#b", b"'5'", b"'b'", b"x'")):
        readers.append(lambda path: starfile.read(path, always_dict=True, parse_as_string=COLUMNS))
    for reader in readers:
        read = [reader(tmp_path / name) for name in ("a.star", "b.star")]
        table = next(name for name, one in read[0].items() if isinstance(one, pd.DataFrame) and "rlnCoordinateX" in one)
        pd.testing.assert_frame_equal(read[1][table], read[0][table].iloc[sorted(keep)].reset_index(drop=True))
        assert set(read[0]) == set(read[1])


ROWS = "TS_01 1.0 2.0 3.0 4 x\n  TS_02   5.50 6 7  11  'y z'  \nTS_01\t8 9 10 5 w # said 1\n"
STAR = "# mine\ndata_particles\n\nloop_\n" + "".join(f"_{name}\n" for name in COLUMNS) + ROWS + "\n# end"


def test_only_the_class_of_a_row_changes(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(STAR)
    io.filter_particles(tmp_path / "a.star", [2, 1], tmp_path / "b.star", classes=[7, 120])
    lines = "  TS_02   5.50 6 7  120  'y z'  \nTS_01\t8 9 10 7 w # said 1\n"
    assert (tmp_path / "b.star").read_text() == STAR.replace(ROWS, lines)
    with pytest.raises(ValueError, match=r"classes must be 1 whole numbers, got \(1,\) of type float64"):
        io.filter_particles(tmp_path / "a.star", [0], tmp_path / "c.star", classes=[0.5])
    (tmp_path / "a.star").write_text(STAR.replace("rlnClassNumber", "rlnOther"))
    with pytest.raises(ValueError, match="no column rlnClassNumber or class to hold classes"):
        io.filter_particles(tmp_path / "a.star", [0], tmp_path / "c.star", classes=[1])
    assert not (tmp_path / "c.star").exists()


def test_a_block_with_one_particle_stays_as_it_is(tmp_path: Path) -> None:
    text = "data_optics\n_a 1\n\ndata_particles\n\n_rlnMicrographName 'TS 1'\n" + "".join(
        f"_rlnCoordinate{a} 5\n" for a in "XYZ"
    )
    (tmp_path / "a.star").write_text(text)
    table = io.read_particles(tmp_path / "a.star", voxel_size=10.0, tilts=(-60, 60))
    assert io.filter_particles(tmp_path / "a.star", table, tmp_path / "b.star").dropped == 0
    assert (tmp_path / "b.star").read_text() == text


@pytest.mark.parametrize(
    ("text", "keep", "told"),
    [
        (STAR, [3], "it has 3 particles, rows 0 to 2, but row 3 is to be kept"),
        (STAR, [-1], "rows are counted from 0, got -1"),
        (STAR, [1, 1], "1 rows are named more than once, such as 1"),
        (STAR, [], "none of its 3 particles is kept"),
        (STAR, [0.5], r"rows are whole numbers \(n,\), got values of type float64"),
        (STAR.replace("1.0 2.0", "1.0"), [0], r"line 11 has 5 values for 6 columns: 'TS_01 1.0 3.0 4 x'"),
        (STAR.replace("rlnCoordinateX", "rlnX"), [0], "there are no coordinates .*: data_particles has rlnMicrographName"),
        (STAR + "\n" + STAR, [0], "this is not a readable STAR file: there are two blocks data_particles"),
        ("", [0], "there are no coordinates .*: it has no tables"),
    ],
)
def test_a_list_that_is_broken_or_a_row_that_is_not_there_is_refused(tmp_path: Path, text: str, keep: list, told: str) -> None:
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.star: {told}"):
        io.filter_particles(tmp_path / "a.star", keep, tmp_path / "b.star")
    assert not (tmp_path / "b.star").exists()


def test_the_list_itself_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(STAR)
    (tmp_path / "link.star").symlink_to(tmp_path / "a.star")
    for name in ("a.star", "link.star"):
        with pytest.raises(ValueError, match="would take the place of"):
            io.filter_particles(tmp_path / "a.star", [0], tmp_path / name)
    with pytest.raises(ValueError, match=r"a copy of a\.star ends in \.star, got b\.tbl"):
        io.filter_particles(tmp_path / "a.star", [0], tmp_path / "b.tbl")
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.star"):
        io.filter_particles(tmp_path / "none.star", [0], tmp_path / "b.star")
    assert (tmp_path / "a.star").read_text() == STAR


def test_rows_are_found_after_particles_were_numbered_anew_moved_and_joined(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(STAR)
    (tmp_path / "b.star").write_text(STAR.replace("TS_02", "TS_09"))
    first, second = (io.read_particles(tmp_path / name, voxel_size=10.0, tilts=(-60, 60)) for name in ("a.star", "b.star"))
    assert first["source_row"].tolist() == [0, 1, 2]
    boxes = [Subtomograms(np.zeros((3, 2, 2, 2)), one, 10.0) for one in (first, second)]
    # Joined, numbered anew, kept as our own list, read again, moved and shuffled: as an average would leave them.
    io.write_particles(join(boxes).particles, tmp_path / "clusters.csv")
    table = io.read_particles(tmp_path / "clusters.csv").sample(frac=1.0, random_state=1)
    table = table.assign(particle_id=table["particle_id"] + 900, x=table["x"] + 33.0, cluster=table["particle_id"] + 40)
    chosen = table[table["cluster"].isin([41, 42, 43])]
    result = io.filter_particles(tmp_path / "a.star", chosen, tmp_path / "c.star", classes="cluster")
    assert (result.kept, result.dropped, result.elsewhere) == (2, 1, 1)
    again = io.read_particles(tmp_path / "c.star", voxel_size=10.0, tilts=(-60, 60))
    assert again["tomogram"].tolist() == ["TS_02", "TS_01"]
    assert again["rlnClassNumber"].tolist() == [41, 42]
    other = io.filter_particles(tmp_path / "b.star", chosen, tmp_path / "d.star")
    assert (other.kept, other.dropped, other.elsewhere) == (1, 2, 2)
    (tmp_path / "a.star").write_text(STAR + "\n")
    with pytest.raises(ValueError, match=r"none of 3 particles was read from this file as it is now \(sha256-\w{16}\)"):
        io.filter_particles(tmp_path / "a.star", chosen, tmp_path / "e.star")
    with pytest.raises(ValueError, match="do not say from which rows they came"):
        io.filter_particles(tmp_path / "a.star", chosen.drop(columns="source_row"), tmp_path / "e.star")


def test_a_dynamo_table_and_its_list_of_tomograms(tmp_path: Path) -> None:
    rows = [" ".join(map(str, [n, 1, 0, *[0.25] * 9, 1, -60, 60, *[0] * 4, 3, 0, n % 2, 0, 10 + n, 20, 30])) for n in (5, 9, 7)]
    (tmp_path / "a.tbl").write_bytes("\r\n".join(rows).encode())
    (tmp_path / "a.doc").write_text("3 TS_03\n")
    table = io.read_particles(tmp_path / "a.tbl", voxel_size=8.0)
    result = io.filter_particles(tmp_path / "a.tbl", table[table["particle_id"] != 9], tmp_path / "b.tbl", classes=[4, 6])
    assert (result.kept, result.dropped) == (2, 1)
    with_classes = [row.split() for row in (rows[0], rows[2])]
    with_classes[0][21], with_classes[1][21] = "4", "6"
    assert (tmp_path / "b.tbl").read_bytes() == "\r\n".join(" ".join(row) for row in with_classes).encode()
    again = io.read_particles(tmp_path / "b.tbl", voxel_size=8.0)
    assert again[["particle_id", "tomogram", "class"]].to_numpy().tolist() == [[5, "TS_03", 4], [7, "TS_03", 6]]
    (tmp_path / "a.tbl").write_text(rows[0] + "\n1 2 3\n")
    with pytest.raises(ValueError, match="line 2 has 3 values for 26 columns: '1 2 3'"):
        io.filter_particles(tmp_path / "a.tbl", [0], tmp_path / "c.tbl")


def test_a_motive_list_of_stopgap(tmp_path: Path) -> None:
    table = particles.table(np.arange(9).reshape(3, 3) * 80.0, ids=[4, 2, 8], tomogram=["b", "a", "b"], score=[0.1, 0.2, 0.3])
    io.write_particles(table, tmp_path / "a.star", voxel_size=8.0, format="stopgap")
    read = io.read_particles(tmp_path / "a.star", voxel_size=8.0, tilts=(-60, 60))
    io.filter_particles(tmp_path / "a.star", read.iloc[[2]], tmp_path / "b.star", classes=[3])
    again = io.read_particles(tmp_path / "b.star", voxel_size=8.0, tilts=(-60, 60))
    assert again[["particle_id", "tomogram", "class", "score"]].to_numpy().tolist() == [[8, "b", 3, 0.3]]


def test_the_list_that_an_optimisation_set_names_is_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(STAR)
    (tmp_path / "set.star").write_text("data_\n\n_rlnTomoParticlesFile a.star\n_rlnTomoTomogramsFile tomograms.star\n")
    (tmp_path / "tomograms.star").write_text(
        "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesPixelSize\nTS_01 10\nTS_02 10\n"
    )
    read = io.read_particles(tmp_path / "set.star", voxel_size=10.0, tilts=(-60, 60))
    assert io.filter_particles(tmp_path / "a.star", read.iloc[[0]], tmp_path / "b.star").dropped == 2


def test_a_list_of_m(tmp_path: Path) -> None:
    names = ["wrpSourceName", *(f"wrp{name}1" for name in ("CoordinateX", "CoordinateY", "CoordinateZ"))]
    text = "\ndata_particles\n\nloop_\n" + "".join(f"_{name}\n" for name in names) + "a.tomostar 1 2 3\nb.tomostar 4 5 6\n"
    (tmp_path / "m.star").write_text(text)
    io.filter_particles(tmp_path / "m.star", [1], tmp_path / "n.star")
    assert (tmp_path / "n.star").read_text() == text.replace("a.tomostar 1 2 3\n", "")


@pytest.mark.parametrize("suffix", [".csv", ".em", ".ndjson", ".mod", ".txt"])
def test_lists_of_other_formats_are_written_anew(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("1 2 3")
    with pytest.raises(ValueError, match=rf"copies are made of \.star and \.tbl, got \{suffix}; .* io\.write_particles"):
        io.filter_particles(path, [0], tmp_path / f"b{suffix}")


def test_a_copy_that_reads_otherwise_than_it_was_meant_does_not_stay(tmp_path: Path) -> None:
    # A row that begins with _ is the name of a column where no other row stands before it.
    (tmp_path / "a.star").write_text(STAR.replace("  TS_02 ", "_TS_02 "))
    assert io.filter_particles(tmp_path / "a.star", [0, 1], tmp_path / "b.star").kept == 2
    with pytest.raises(ValueError, match=r"c\.star would not read as the list does, and is not written: .* for 7 columns"):
        io.filter_particles(tmp_path / "a.star", [1, 2], tmp_path / "c.star")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.star", "b.star"]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_old_line_ends_and_marks_at_the_start_stay(tmp_path: Path, start: bytes) -> None:
    text = start + STAR[STAR.index("data_") :].replace("\n", "\r").encode()
    (tmp_path / "a.star").write_bytes(text)
    io.filter_particles(tmp_path / "a.star", [0, 2], tmp_path / "b.star")
    assert (tmp_path / "b.star").read_bytes() == text.replace(b"  TS_02   5.50 6 7  11  'y z'  \r", b"")


BODIES = """
data_images_body_1

loop_
_rlnAngleRot
_rlnOriginXAngst
1 0
2 0 # one
3 0

data_images_body_2
loop_
_rlnAngleRot
4
5
6

data_counts
_rlnParticleNumber 3
"""


def test_tables_with_a_row_for_each_particle_lose_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(STAR + BODIES)
    with pytest.warns(UserWarning, match=r"holds 2 of the 3 particles of a\.star, but rlnParticleNumber of data_counts"):
        io.filter_particles(tmp_path / "a.star", [2, 0], tmp_path / "b.star", classes=[7, 8])
    blocks = parsing.blocks(tmp_path / "b.star")
    assert blocks["particles"]["rlnClassNumber"].tolist() == ["8", "7"]
    assert blocks["images_body_1"]["rlnAngleRot"].tolist() == ["1", "3"]
    assert blocks["images_body_2"]["rlnAngleRot"].tolist() == ["4", "6"]
    # All of them are still counted rightly.
    io.filter_particles(tmp_path / "a.star", [0, 1, 2], tmp_path / "c.star")
    assert (tmp_path / "c.star").read_text() == STAR + BODIES
    (tmp_path / "a.star").write_text(STAR + BODIES.replace("4\n5\n", "4\n"))
    with pytest.raises(ValueError, match=r"data_images_body_2 has 2 rows for 3 particles; it must have one for each"):
        io.filter_particles(tmp_path / "a.star", [0], tmp_path / "d.star")
