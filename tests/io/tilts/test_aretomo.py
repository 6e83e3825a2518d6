"""Alignments of AreTomo mean what AreTomo means by them, whichever version counted the images, and wrong files are refused."""

import alnfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolab import io

# Numbers as CSaveAlignFile.cpp prints them; the .xf of them is what the package alnfile 0.1.1 makes of this file.
THREE = """# AreTomo Alignment / Priims bprmMn
# RawSize = 4092 5760 3
# NumPatches = 0
# AlphaOffset =     1.50
# BetaOffset =     0.00
# Thickness = 900
# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
    1   -12.6611    1.00000     24.786     -2.677     1.00     1.00     1.00     0.00    -61.50
    2    84.2500    1.00000   -103.400     55.125     1.00     1.00     1.00     0.00      0.02
    3   178.0000    1.00000      0.000     12.500     1.00     1.00     1.00     0.00     60.00
"""
XF = """0.97568358 -0.219183831 0.219183831 0.97568358 -24.770048329 -2.820785493
0.100188062 0.994968518 -0.994968518 0.100188062 -44.488193998 -108.402611684
-0.999390827 0.034899497 -0.034899497 -0.999390827 -0.436243709 12.492385338
"""
NAMES = ("SEC", "ROT", "GMAG", "TX", "TY", "SMEAN", "SFIT", "SCALE", "BASE", "TILT")


def written(rows, *, dark=(), title: str = "", local: str = "") -> str:
    """An .aln file of rows (SEC, ROT, TX, TY, TILT)."""
    lines = [f"# DarkFrame = {place:5d} {section:4d} {tilt:8.2f}" for place, section, tilt in dark]
    lines += [f"# {'  '.join(NAMES)}"]
    lines += [f"{s:5d} {r:9.4f} 1.00000 {x:9.3f} {y:9.3f} 1.00 1.00 1.00 0.00 {t:8.2f}" for s, r, x, y, t in rows]
    return title + "\n".join(lines) + "\n" + local


def test_transforms_are_those_that_imod_would_be_given(tmp_path) -> None:
    (tmp_path / "a.aln").write_text(THREE)
    (tmp_path / "a.xf").write_text(XF)
    found = io.tilts.read_aretomo(tmp_path / "a.aln")
    wanted = io.tilts.read_transforms(tmp_path / "a.xf")
    np.testing.assert_allclose(found.transforms[0], wanted[0], atol=1e-6)
    np.testing.assert_allclose(found.transforms[1], wanted[1], atol=1e-5)
    assert found.tilts.tolist() == [-61.5, 0.02, 60]
    assert found.sections.tolist() == [0, 1, 2]
    assert (found.size, found.offsets, found.images, len(found.patches)) == ((4092, 5760), (1.5, 0.0), 3, 0)


def test_another_reader_finds_the_same(tmp_path) -> None:
    (tmp_path / "a.aln").write_text(THREE)
    ours, theirs = io.tilts.read_aretomo(tmp_path / "a.aln"), alnfile.read(tmp_path / "a.aln")
    transforms = alnfile.df_to_xf(theirs)
    np.testing.assert_allclose(ours.transforms[0], transforms[:, :, :2], atol=1e-6)
    np.testing.assert_allclose(ours.transforms[1], transforms[:, :, 2], atol=1e-5)
    np.testing.assert_allclose(ours.tilts, theirs["tilt"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_files_of_windows(tmp_path, encoding: str) -> None:
    (tmp_path / "a.aln").write_bytes(THREE.replace("\n", "\r\n").encode(encoding))
    found = io.tilts.read_aretomo(tmp_path / "a.aln")
    assert found.tilts.tolist() == [-61.5, 0.02, 60]
    assert found.size == (4092, 5760)


angle = st.floats(-180, 180).map(lambda value: round(value, 4))
shift = st.floats(-3000, 3000).map(lambda value: round(value, 3))
tilt = st.floats(-80, 80).map(lambda value: round(value, 2))


@given(st.lists(st.tuples(angle, shift, shift, tilt), min_size=1, max_size=9), st.data())
def test_what_is_written_is_found(tmp_path_factory, rows, data) -> None:
    """Any order of rows, any images dark, counted from 0 or 1: turn, shift and tilt are found again for the right image."""
    total = len(rows)
    first = data.draw(st.sampled_from([0, 1]))
    order = data.draw(st.permutations(range(total)))
    dark = sorted(data.draw(st.sets(st.sampled_from(range(total)), max_size=total - 1)))
    path = tmp_path_factory.mktemp("aln") / "a.aln"
    kept = [number for number in order if number not in dark]
    body = [(number + first, *rows[number]) for number in kept]
    path.write_text(written(body, dark=[(place, number + first, rows[number][3]) for place, number in enumerate(dark)]))
    found = io.tilts.read_aretomo(path)
    assert found.sections.tolist() == kept
    assert found.dark.tolist() == dark
    assert found.dark_tilts.tolist() == [rows[number][3] for number in dark]
    assert found.tilts.tolist() == [rows[number][3] for number in kept]
    matrices, shifts = found.transforms
    back = np.linalg.inv(matrices)
    turned = np.degrees(np.arctan2(back[:, 1, 0], back[:, 0, 0]))
    off = (turned - [rows[number][0] for number in kept] + 180) % 360 - 180
    np.testing.assert_allclose(off, 0, atol=1e-9)
    np.testing.assert_allclose(-(back @ shifts[:, :, None])[:, :, 0], [rows[number][1:3] for number in kept], atol=1e-8)


def test_older_aretomo3_counts_what_is_left(tmp_path) -> None:
    """Dark images are the lowest and the fourth in order of tilt; rows count 0 to 2."""
    rows = [(0, 0, 1, 0, -3.0), (2, 0, 3, 0, 6.0), (1, 0, 2, 0, 0.0)]
    (tmp_path / "a.aln").write_text(written(rows, dark=[(0, 0, -6.0), (3, 0, 3.0)]))
    found = io.tilts.read_aretomo(tmp_path / "a.aln")
    assert found.sections.tolist() == [1, 4, 2]
    assert found.dark.tolist() == [0, 3]


def test_local_alignment_is_kept(tmp_path) -> None:
    local = "# Local Alignment\n0 0 -100.5 20 1.5 -2.5 1.0\n0 1 90 20 0 0 0.0\n"
    (tmp_path / "a.aln").write_text(written([(0, 80, 1, 2, 3.0)], title="# NumPatches = 2\n", local=local))
    patches = io.tilts.read_aretomo(tmp_path / "a.aln").patches
    assert patches.iloc[0].tolist() == [0, 0, -100.5, 20, 1.5, -2.5, 1]
    assert patches["patch"].tolist() == [0, 1]


ROW = "0 80 1 2 3 1 1 1 0 6.5\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows of SEC ROT"),
        ("# SEC\n# Local Alignment\n", "has no rows"),
        (ROW + "1 80 1 2 3 1 1 1 0\n", "line 2: expected 10 finite numbers, got '1 80"),
        (ROW + "1 80 1 nan 3 1 1 1 0 9\n", "line 2: expected 10 finite numbers"),
        ("Hello\n" + ROW, "line 1: expected 10 finite numbers, got 'Hello'"),
        ("0 80 1.2 2 3 1 1 1 0 6.5\n", "line 1: GMAG is 1 in all that AreTomo writes, got 1.2"),
        ("0 80 1 2 3 1 1 1 0 96.5\n", "line 1: a tilt lies within ±90°, got 96.5"),
        ("0.5 80 1 2 3 1 1 1 0 6.5\n", "line 1: SEC is the number of an image, got 0.5"),
        ("-1 80 1 2 3 1 1 1 0 6.5\n", "line 1: SEC is the number of an image, got -1"),
        (ROW + ROW, "of 2 images, each must stand once.*got SEC 0, 0 and dark images none"),
        ("7" + ROW, "of 1 images, each must stand once.*got SEC 70"),
        ("# DarkFrame = 5 5 3\n" + ROW, "of 2 images, each must stand once"),
        ("# DarkFrame = 5\n" + ROW, "line 1: expected 3 finite numbers, got '5'"),
        ("# RawSize = 10 10 999999999\n" + ROW, "line 1: a stack of 1e.09 images, but there are 1 rows and 0 dark"),
        ("# RawSize = 0 10 1\n" + ROW, "line 1: sizes are positive"),
        ("# NumPatches = 1e9\n" + ROW, "NumPatches asks for 1e.09 rows of local alignment of 1 images, got 0"),
        (ROW + "# Local Alignment\n0 0 1 1 1 1 1\n", "NumPatches asks for 0 rows"),
        ("# NumPatches = 1\n" + ROW + "# Local Alignment\n0 0 1 1 1 1\n", "line 4: expected 7 finite numbers"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "a.aln").write_text(text)
    with pytest.raises(ValueError, match=message):
        io.tilts.read_aretomo(tmp_path / "a.aln")


def test_no_file_and_bytes_that_are_no_text(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        io.tilts.read_aretomo(tmp_path / "a.aln")
    (tmp_path / "a.aln").write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(ValueError, match=r"a\.aln: line 2 holds NUL bytes"):
        io.tilts.read_aretomo(tmp_path / "a.aln")
