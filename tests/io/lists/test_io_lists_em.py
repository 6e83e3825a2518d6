"""Motive lists of AV3, TOM and Artiatomi mean what these mean, on any machine, and hold no more than they say."""

import struct
from pathlib import Path

import emfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomolab import io, particles


def put(folder: Path, rows: dict[int, list[float]], *, order: str = "<", machine: int = 6, kind: str = "f4") -> Path:
    """A motive list with these rows, counted from 1, and zeros else."""
    numbers = np.zeros((len(next(iter(rows.values()))), 20))
    for row, values in rows.items():
        numbers[:, row - 1] = values
    code = {"i2": 2, "i4": 4, "f4": 5, "f8": 9}[kind]
    head = struct.pack("4B", machine, 0, 0, code) + struct.pack(f"{order}3i", 20, len(numbers), 1)
    (folder / "a.em").write_bytes(head.ljust(512, b"\0") + numbers.astype(f"{order}{kind}").tobytes())
    return folder / "a.em"


ONE = {
    1: [0.25],
    4: [7],
    5: [3],
    8: [101],
    9: [51],
    10: [11],
    11: [2],
    12: [-1],
    13: [4],
    17: [20],
    18: [-30],
    19: [40],
    20: [2],
}


@pytest.mark.parametrize(("order", "machine"), [("<", 6), (">", 3), (">", 5), (">", 6), ("<", 0)])
@pytest.mark.parametrize("kind", ["f4", "f8", "i4", "i2"])
def test_a_list_of_any_machine_is_read(tmp_path, order: str, machine: int, kind: str) -> None:
    rows = ONE if kind.startswith("f") else {**ONE, 1: [1]}
    read = io.read_particles(put(tmp_path, rows, order=order, machine=machine, kind=kind), voxel_size=8.0, tilts=(-60, 60))
    # Voxels are counted from 1; shifts are added.
    np.testing.assert_allclose(particles.positions(read), [[8 * 14, 8 * 49, 8 * 102]])
    # phi about z first, then theta about x, then psi about z.
    turn = Rotation.from_euler("z", -30, degrees=True) * Rotation.from_euler("x", 40, degrees=True)
    turn = (turn * Rotation.from_euler("z", 20, degrees=True)).as_matrix()
    np.testing.assert_allclose(particles.matrices(read)[0][::-1, ::-1], turn, atol=1e-6)
    assert read.loc[0, ["particle_id", "tomogram", "class"]].tolist() == [7, "3", 2]
    assert read.loc[0, "score"] == (0.25 if kind.startswith("f") else 1)


def test_angles_are_stopgaps(tmp_path) -> None:
    """The same phi, psi, theta mean the same turn in a motive list of either kind."""
    table = particles.table(np.zeros((9, 3)), rotations=Rotation.random(9, rng=4).as_matrix(), ids=np.arange(9) + 1)
    io.write_particles(table, tmp_path / "a.em", voxel_size=8.0)
    io.write_particles(table, tmp_path / "b.star", voxel_size=8.0, format="stopgap")
    _, numbers = emfile.read(tmp_path / "a.em")
    theirs = [line.split() for line in (tmp_path / "b.star").read_text().splitlines() if len(line.split()) > 10]
    np.testing.assert_allclose(numbers[0][:, 16:19], [[float(word) for word in words[12:15]] for words in theirs], atol=1e-4)


def test_emfile_reads_what_we_write_and_we_what_it_writes(tmp_path) -> None:
    table = particles.table(
        [[30.0, 20.0, 14.0], [0, 0, 0]], ids=[5, 9], tomogram=["TS_02", "TS_01"], score=[0.5, 1], label="a", **{"class": 3}
    )
    path = io.write_particles(table, tmp_path / "a.em", voxel_size=10.0)
    header, numbers = emfile.read(path)
    assert (header["xdim"], header["ydim"], header["zdim"], header["machine"], header["dtype"]) == (20, 2, 1, 6, 5)
    assert numbers.shape == (1, 2, 20)
    first = dict(enumerate(numbers[0, 0].tolist(), 1))
    assert [first[row] for row in (1, 4, 5, 6, 7, 8, 9, 10, 20)] == [0.5, 5, 1, 0, 0, 2, 3, 4, 3]
    assert first[11] == pytest.approx(0.4)
    assert (tmp_path / "a_tomolist.txt").read_text() == "1 TS_02\n2 TS_01\n"
    emfile.write(tmp_path / "b.em", numbers)
    (tmp_path / "b_tomolist.txt").write_text("1 TS_02\n2 TS_01\n")
    read = io.read_particles(tmp_path / "b.em", voxel_size=10.0, tilts=(-60, 60))
    np.testing.assert_allclose(particles.positions(read), particles.positions(table), atol=1e-5)
    assert read["tomogram"].tolist() == ["TS_02", "TS_01"]
    assert read["particle_id"].tolist() == [5, 9]


def test_artiatomi_numbers_particles_in_row_6(tmp_path) -> None:
    table = particles.table(np.zeros((2, 3)), ids=[5, 9], tomogram=["3", "4"])
    path = io.write_particles(table, tmp_path / "a.em", voxel_size=10.0, format="artiatomi")
    _, numbers = emfile.read(path)
    assert numbers[0][:, 3:7].tolist() == [[0, 3, 5, 3], [0, 4, 9, 4]]
    read = io.read_particles(path, voxel_size=10.0, tilts=(-60, 60))
    assert read["particle_id"].tolist() == [5, 9]
    assert read["motl_7"].tolist() == [3, 4]
    again = io.write_particles(read, tmp_path / "b.em", voxel_size=10.0, format="artiatomi")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("rows", "ids"),
    [({4: [7, 9], 6: [1, 2]}, [7, 9]), ({6: [3, 2]}, [3, 2]), ({6: [1, 1], 5: [1, 2]}, [1, 2]), ({5: [1, 1]}, [1, 2])],
)
def test_ids_are_found_where_programs_keep_them(tmp_path, rows: dict, ids: list) -> None:
    read = io.read_particles(put(tmp_path, rows), voxel_size=8.0, tilts=(-60, 60))
    assert read["particle_id"].tolist() == ids
    assert ("motl_6" in read) == (6 in rows and rows[6] != ids)


def test_repeated_numbers_of_row_4_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"2 of 3 particles \(particle_id 5, 5\) have an id that another row has too"):
        io.read_particles(put(tmp_path, {4: [5, 6, 5]}), voxel_size=8.0, tilts=(-60, 60))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:100], "no EM file: it has 100 bytes, and the header alone 512"),
        (lambda raw: raw[:3] + b"\x08" + raw[4:], "no EM file of real numbers: its type is 8"),
        (lambda raw: raw[:-4], "the header names 20 x 1 x 1 numbers of 4 bytes, but 76 bytes follow"),
        (lambda raw: raw[:8] + struct.pack("<i", 2**30) + raw[12:], r"the header names 20 x 1073741824 x 1 numbers"),
        (lambda raw: raw[:4] + struct.pack("<3i", -20, -1, 1) + raw[16:], "the header names -20 x -1 x 1 numbers"),
        (
            lambda raw: raw[:4] + struct.pack("<3i", 4, 5, 1) + raw[16:],
            "holds 20 numbers for each particle, this EM file 4 x 5 x 1",
        ),
        (lambda raw: raw[:512] + struct.pack("<f", np.nan) + raw[516:], "rows 1 of the motive list have values that are no"),
        (lambda raw: raw[:528] + struct.pack("<f", 1.5) + raw[532:], "row 5 must number the tomograms, got 1.5"),
    ],
)
def test_what_is_no_motive_list_is_named(tmp_path, change, message: str) -> None:
    path = put(tmp_path, ONE)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        io.read_particles(path, voxel_size=8.0, tilts=(-60, 60))


def test_what_a_motive_list_cannot_hold_is_refused(tmp_path) -> None:
    good = particles.table([[1.0, 2.0, 3.0]], ids=[1])
    for table, message in (
        (good.assign(particle_id=0), "from 1 to 16777216; 1 of 1 are not, first 0"),
        (good.assign(particle_id=2**24 + 1), "from 1 to 16777216"),
        (good.assign(tomogram="two words"), "names with blanks"),
        (good.assign(score="high"), "score of row 0: 'high'"),
    ):
        with pytest.raises(ValueError, match=message):
            io.write_particles(table, tmp_path / "a.em", voxel_size=10.0)
    with pytest.raises(ValueError, match="a motive list needs voxel_size="):
        io.write_particles(good, tmp_path / "a.em")
    assert not list(tmp_path.iterdir())
    empty = io.write_particles(good[:0], tmp_path / "a.em", voxel_size=10.0)
    assert len(io.read_particles(empty, voxel_size=10.0, tilts=(-60, 60))) == 0


def test_the_list_of_tomograms_may_have_tabs(tmp_path) -> None:
    path = put(tmp_path, {4: [1, 2], 5: [1, 7]})
    path.with_name(f"{path.stem}_tomolist.txt").write_text("1\tTS_01.rec\n7 \t TS_07.rec\n")
    assert io.read_particles(path, voxel_size=8.0, tilts=(-60, 60))["tomogram"].tolist() == ["TS_01.rec", "TS_07.rec"]
