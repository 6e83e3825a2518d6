"""Particle lists survive the way out and back, and RELION's conventions hold at the door."""

import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from conftest import blob
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomolab import io, particles, subtomograms, volumes
from tomolab.io.lists.star import parsing

SHAPES = {"TS_01": (700, 701, 640), "001": (701, 660, 650)}
FORMATS = {
    "a.csv": {},
    "a.star": {"voxel_size": 7.84},
    "b.star": {"voxel_size": 7.84, "format": "relion5", "tomogram_shape": SHAPES},
    "d.star": {"voxel_size": 7.84, "format": "relion30"},
    "e.star": {"voxel_size": 7.84, "format": "relion4"},
}
NUMBERED = {
    "a.tbl": {"voxel_size": 7.84},
    "c.star": {"voxel_size": 7.84, "format": "stopgap"},
    "a.em": {"voxel_size": 7.84},
    "b.em": {"voxel_size": 7.84, "format": "artiatomi"},
}
"""Those that keep certain columns only, and number tomograms."""
OTHERS = {
    **FORMATS,
    **NUMBERED,
    "f.star": {"voxel_size": 7.84, "format": "warp"},
    "a.ndjson": {"voxel_size": 7.84},
}
"""Those too that change the names of tomograms or are of one tomogram."""
POINTS = {**OTHERS, "a.mod": {"voxel_size": 7.84}}
"""And what knows positions only."""


def some(seed: int = 0, count: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return particles.table(
        rng.uniform(-50, 5000, (count, 3)),
        tomogram=rng.choice(list(SHAPES), count).tolist(),
        ids=rng.permutation(count) + 40,
        rotations=Rotation.random(count, rng=rng).as_matrix(),
        tilts=np.stack([rng.uniform(-70, -40, count), rng.uniform(40, 70, count)], axis=1),
        label=rng.choice(["80S ribosome", "12", "a"], count).tolist(),
        score=10.0 ** rng.integers(-9, 9, count) / 3,
        rlnImageName=[f"000{i}@stack.mrcs" for i in range(count)],
        cluster_2=rng.integers(0, 4, count),
    )


def back(table: pd.DataFrame, folder, name: str) -> pd.DataFrame:
    """The table written and read again."""
    path = io.write_particles(table, folder / name, **POINTS[name])
    known = {key: value for key, value in POINTS[name].items() if key != "format"}
    if name not in FORMATS and name != "a.tbl":
        # These do not know the tilts.
        known["tilts"] = (-60, 60)
    if name in ("a.ndjson", "a.mod"):
        known["tomogram"] = "TS_01"
    return io.read_particles(path, **known)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 9))
def test_a_table_comes_back(tmp_path, name: str, seed: int, count: int) -> None:
    table = some(seed, count)
    read = back(table, tmp_path, name)
    np.testing.assert_allclose(particles.positions(read), particles.positions(table), atol=1e-3)
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(table), atol=1e-6)
    for column in ("particle_id", "tomogram", "label", "score", "cluster_2", "rlnImageName", "tilt_min", "tilt_max"):
        assert read[column].tolist() == table[column].tolist(), column


@pytest.mark.parametrize("name", OTHERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # All in one voxel is what a warning says.
    places=st.lists(
        st.tuples(*[st.floats(-90, 5000)] * 3), min_size=1, max_size=5, unique_by=lambda place: place[0] // 500
    ).filter(lambda places: len(places) == 1 or np.ptp(places, axis=0).max() > 20),
    # Tilts of 0° and 180°, where two angles become one, among them.
    angles=st.tuples(st.floats(-360, 360), st.sampled_from([0.0, 1e-7, 33.0, 90.0, 180.0]), st.floats(-360, 360)),
)
def test_a_pose_comes_back_from_every_format(tmp_path, name: str, places: list, angles: tuple) -> None:
    table = particles.table(places, ids=np.arange(len(places)) + 1, angles=[angles] * len(places), tomogram="TS_01", score=0.5)
    read = back(table, tmp_path, name)
    np.testing.assert_allclose(particles.positions(read), particles.positions(table), atol=1e-3)
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(table), atol=1e-6)
    assert read["particle_id"].tolist() == table["particle_id"].tolist()
    assert set(read["tomogram"]) == {"TS_01.tomostar" if name == "f.star" else "TS_01"}
    if name != "a.ndjson":
        assert read["score"].tolist() == table["score"].tolist()


@pytest.mark.parametrize("name", NUMBERED)
def test_names_of_tomograms_stand_in_a_list_beside(tmp_path, name: str) -> None:
    places = 100 * np.arange(9.0).reshape(3, 3)
    table = particles.table(places, ids=[5, 3, 9], tomogram=["TS_02", "TS_01", "TS_02"], **{"class": 4})
    read = back(table, tmp_path, name)
    assert read["tomogram"].tolist() == table["tomogram"].tolist()
    assert read["particle_id"].tolist() == [5, 3, 9]
    assert read["class"].tolist() == [4, 4, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, "a.doc" if name == "a.tbl" else f"{name.split('.')[0]}_tomolist.txt"]
    )


@pytest.mark.parametrize("name", OTHERS)
def test_the_phantom_lies_where_it_lay(tmp_path, phantom, name: str) -> None:
    turns = Rotation.random(4, rng=2).as_matrix()
    places = 10 * np.random.default_rng(1).uniform(-3, 3, (4, 3)) + 1000
    table = particles.table(places, tomogram="TS_01", rotations=turns, ids=np.arange(4) + 1)
    read = back(table, tmp_path, name)

    def seen(matrices: np.ndarray, positions: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(phantom.data).expand(4, -1, -1, -1)
        return volumes.transform(batch, torch.from_numpy(matrices), torch.from_numpy((positions - 1000) / 10)).numpy()

    true = seen(turns, places)
    np.testing.assert_allclose(seen(particles.matrices(read), particles.positions(read)), true, atol=1e-3)
    for wrong in (seen(turns.transpose(0, 2, 1), places), seen(turns, 2000 - places)):
        assert min(np.abs(wrong - true).max(axis=(1, 2, 3))) > 0.3


@pytest.mark.parametrize("name", POINTS)
def test_what_is_cut_where_a_list_says_is_the_particle(tmp_path, name: str) -> None:
    """Three unequal beads of a particle, drawn into a tomogram: its box fits the beads, turned as the list says."""
    size, place, box = 7.84, np.array([31.3, 26.6, 42.2]), 24
    beads = np.array([[6.0, 1.0, 0.0], [0.0, -5.0, 2.0], [-1.0, 0.0, 7.0]])
    turn = np.eye(3) if name == "a.mod" else Rotation.from_euler("xyz", [40, -75, 110], degrees=True).as_matrix()
    tomogram = np.zeros((58, 61, 77))
    for weight, bead in zip((1.0, 2.0, 3.0), place + beads @ turn.T, strict=True):
        axes = np.ogrid[tuple(slice(n) for n in tomogram.shape)]
        tomogram += weight * np.exp(-sum((axis - at) ** 2 for axis, at in zip(axes, bead, strict=True)) / 4.5)
    table = particles.table([place * size], ids=[3], rotations=[turn], tomogram="TS_01")
    read = back(table, tmp_path, name)
    seen = subtomograms.extract(volumes.Volume(tomogram, size), read, box=box).volumes[0]

    def drawn(matrix: np.ndarray) -> np.ndarray:
        out = sum(weight * blob(box, tuple(matrix @ bead), 1.5) for weight, bead in zip((1.0, 2.0, 3.0), beads, strict=True))
        return (out - out.mean()) / out.std()

    matrix = particles.matrices(read)[0]
    np.testing.assert_allclose(seen, drawn(matrix), atol=0.05)
    assert np.abs(seen - drawn(matrix.T if name != "a.mod" else matrix[::-1])).max() > 1


def test_csv_is_exact(tmp_path) -> None:
    table = some().assign(picked=[True, False, True, True, False, True], note=["007", "x, y", 'say "so"', "None", "NA", "#"])
    pd.testing.assert_frame_equal(back(table, tmp_path, "a.csv"), table)


@pytest.mark.parametrize("name", FORMATS)
def test_a_single_row_and_no_row(tmp_path, name: str) -> None:
    assert back(some(count=1), tmp_path, name)["tomogram"].dtype == some()["tomogram"].dtype
    assert len(back(some()[:0], tmp_path, name)) == 0


@pytest.mark.parametrize("name", ["a.star", "b.star"])
def test_writing_what_was_read_changes_nothing(tmp_path, name: str) -> None:
    once = back(some(), tmp_path, name)
    text = (tmp_path / name).read_text()
    twice = back(once, tmp_path, name)
    pd.testing.assert_frame_equal(once, twice)
    assert (tmp_path / name).read_text() == text


def test_relion31_columns_mean_what_relion_means(tmp_path) -> None:
    table = particles.table([[30.0, 20.0, 10.0]], tomogram="TS_01", angles=[[10.0, 20.0, 30.0]], label="a")
    blocks = starfile.read(io.write_particles(table, tmp_path / "a.star", voxel_size=10.0), always_dict=True)
    row, optics = blocks["particles"].iloc[0], blocks["optics"].iloc[0]
    assert [row[f"rlnCoordinate{axis}"] for axis in "XYZ"] == [1, 2, 3]
    assert [row[f"rlnOrigin{axis}Angst"] for axis in "XYZ"] == [0, 0, 0]
    assert [row[f"rlnAngle{angle}"] for angle in ("Rot", "Tilt", "Psi")] == [10, 20, 30]
    assert row["rlnMicrographName"] == "TS_01"
    assert row["rlnOpticsGroup"] == optics["rlnOpticsGroup"] == 1
    assert optics["rlnImagePixelSize"] == 10
    assert row["tomolabLabel"] == "a"
    text = (tmp_path / "a.star").read_text()
    assert text.count("# version 30001") == 2
    assert text.index("# version") < text.index("data_optics") < text.index("data_particles")


def test_relion5_counts_from_the_middle_of_the_tomogram(tmp_path) -> None:
    table = particles.table([[30.0, 20.0, 10.0]], tomogram="TS_01")
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=10.0, format="relion5", tomogram_shape=(9, 40, 100))
    row = starfile.read(path, always_dict=True)["particles"].iloc[0]
    assert [row[f"rlnCenteredCoordinate{axis}Angst"] for axis in "XYZ"] == [10 - 500, 20 - 200, 30 - 45]
    assert row["rlnTomoName"] == "TS_01"


def test_optics_groups_come_back_apart(tmp_path) -> None:
    table = some().assign(rlnOpticsGroup=[1, 2, 1, 2, 1, 1], rlnVoltage=[300.0, 200.0, 300.0, 200.0, 300.0, 300.0])
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=7.84)
    optics = starfile.read(path, always_dict=True)["optics"]
    assert optics["rlnOpticsGroup"].tolist() == [1, 2]
    assert optics["rlnVoltage"].tolist() == [300, 200]
    assert io.read_particles(path)["rlnVoltage"].tolist() == table["rlnVoltage"].tolist()
    clash = table.assign(rlnOpticsGroup=1)
    io.write_particles(clash, path, voxel_size=7.84)
    assert io.read_particles(path)["rlnVoltage"].tolist() == table["rlnVoltage"].tolist()


def test_only_known_tomograms_pass(tmp_path) -> None:
    path = io.write_particles(some(count=20), tmp_path / "a.star", voxel_size=7.84)
    assert len(io.read_particles(path, tomograms=SHAPES)) == 20
    with pytest.raises(ValueError, match="names tomograms that are not there: tomograms= lacks 001; it has TS_01, TS_02"):
        io.read_particles(path, tomograms=["TS_01", "TS_02"])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.txt", {}, r"\.csv, \.em, \.mod, \.ndjson, \.star or \.tbl, got \.txt"),
        ("a.star", {}, "needs voxel_size="),
        (
            "a.star",
            {"voxel_size": 10.0, "format": "relion9"},
            "unknown format 'relion9' of a STAR file; there are relion30, warp, relion31, relion4, .*stopgap",
        ),
        ("a.star", {"voxel_size": 10.0, "format": "relion5"}, "give voxel_size= and tomogram_shape="),
        (
            "a.star",
            {"voxel_size": 10.0, "format": "relion5", "tomogram_shape": {"x": (1, 1, 1)}},
            "tomogram_shape= lacks TS_01; it has x",
        ),
    ],
)
def test_writing_asks_for_what_it_needs(tmp_path, name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.write_particles(some(), tmp_path / name, **arguments)
    assert not list(tmp_path.iterdir())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
            st.text("\"'# a5.\u00e9\t\n_-", max_size=6),
            st.sampled_from(
                ["nan", "<NA>", "", " ", "data_a", "loop_", "_a", "007", "1e5", "True", "None", "5'-cap", "80S, \u03b1"]
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_name_comes_back_as_it_is_or_is_refused(tmp_path, names: list[str]) -> None:
    """Cluster names of whatever characters; what starfile reads is the same, but that it takes numbers for numbers."""
    table = particles.table(
        np.zeros((len(names), 3)), ids=np.arange(len(names)), tomogram="TS_01", cluster_name=names, score=1.5
    )
    bad = [n for n in names if set(n) & set("\"'#\x7f\x85\u2028\u2029") or min(n, default=" ") < " " or n in parsing.MISSING]
    if bad:
        with pytest.raises(ValueError, match=r"rename them, or write \.csv"):
            io.write_particles(table, tmp_path / "a.star", voxel_size=10.0)
        return
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=10.0)
    read = io.read_particles(path)
    assert read["cluster_name"].tolist() == names
    assert read["score"].tolist() == [1.5] * len(names)
    theirs = starfile.read(path, always_dict=True, parse_as_string=["tomolabClusterName"])["particles"]
    assert theirs["tomolabClusterName"].tolist() == names
    assert theirs["tomolabScore"].tolist() == [1.5] * len(names)


@pytest.mark.parametrize("text", ['say "so"', "it's", "a#b", "a\tb", "a\nb", "a\0b", "nan"])
def test_text_that_star_cannot_hold_is_refused(tmp_path, text: str) -> None:
    table = some(count=2).assign(label=["a", text])
    with pytest.raises(ValueError, match="column tomolabLabel: 1 texts hold a quote, #, tab or line break"):
        io.write_particles(table, tmp_path / "a.star", voxel_size=10.0)
    with pytest.raises(ValueError, match="its name has a blank"):
        io.write_particles(some().assign(**{"my note": 1}), tmp_path / "a.star", voxel_size=10.0)


@pytest.mark.parametrize("suffix", [".star", ".tbl", ".csv", ".json", ".ndjson", ".em", ".mod"])
@pytest.mark.parametrize("content", [b"", b"data_\xff\xfe\n", b"\xe9" * 600, b"\0" * 600, b"1 2 3\n" * 5])
def test_what_is_no_list_is_refused_by_name(tmp_path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    arguments = {"voxel_size": 10.0, "tilts": (-60, 60), "tomogram": "TS_01"} | (
        {"unit": "angstrom"} if suffix == ".csv" else {}
    )
    if suffix in (".tbl", ".ndjson") and not content:
        assert len(io.read_particles(path, **arguments)) == 0
        return
    with pytest.raises(ValueError, match=rf"a\{suffix}: "):
        io.read_particles(path, **arguments)


@pytest.mark.parametrize("name", ["a.tbl", "a.star", "a.csv"])
def test_ids_that_repeat_are_numbered_anew_on_request(tmp_path, name: str) -> None:
    known = {"tilts": (-60, 60), "voxel_size": 10.0}
    if name == "a.tbl":
        row = "{} 1 1 0 0 0 0 0 0 0.3 0 0 1 -60 60 0 0 0 0 1 0 1 0 {} 60 70"
        (tmp_path / name).write_text("".join(f"{row.format(tag, 50 * n)}\n" for n, tag in enumerate((7, 7, 9))))
    elif name == "a.star":
        text = "data_particles\n\nloop_\n_rlnTomoName\n_tomolabParticleId\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        (tmp_path / name).write_text(text + "".join(f"TS_01 {tag} {50 * n} 5 6\n" for n, tag in enumerate((7, 7, 9))))
    else:
        known |= {"unit": "voxel", "tomogram": "TS_01"}
        (tmp_path / name).write_text("id,x,y,z\n7,0,5,6\n7,50,5,6\n9,100,5,6\n")
    with pytest.raises(ValueError, match=r"\(particle_id 7, 7\) have an id that another row has too; give renumber=True"):
        io.read_particles(tmp_path / name, **known)
    read = io.read_particles(tmp_path / name, renumber=True, **known)
    assert read["particle_id"].tolist() == [0, 1, 2]
    assert read["original_id"].tolist() == [7, 7, 9]
    assert read["source_row"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.diff(read["x"]), 500)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.star", {"unit": "furlong"}, "unit"),
        ("a.star", {"tomogram_list": "there_is_none.star"}, "no list of tomograms there_is_none.star"),
        ("c.star", {"unit": "voxel"}, "unit= has no meaning for such a file"),
        ("a.tbl", {"tomogram_list": "tomograms.star"}, "tomogram_list= has no meaning for such a file; what can be given is"),
        ("a.em", {"unit": "voxel"}, "unit= has no meaning"),
        ("a.mod", {"tomogram_list": "tomograms.star", "unit": "voxel"}, "tomogram_list=, unit= has no meaning"),
        ("a.ndjson", {"unit": "angstrom"}, "unit= has no meaning"),
        ("a.csv", {"tomogram_list": "tomograms.star"}, "tomogram_list= has no meaning"),
    ],
)
def test_a_parameter_that_no_reader_of_the_format_uses_is_refused(tmp_path, name: str, arguments: dict, message: str) -> None:
    table = some().assign(tomogram="TS_01") if name in ("a.mod", "a.ndjson") else some()
    path = io.write_particles(table, tmp_path / name, **POINTS[name])
    known = {key: value for key, value in POINTS[name].items() if key != "format"}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        io.read_particles(path, **known, tilts=(-60, 60), **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.csv", {"voxel_size": 10.0}, "voxel_size= has no meaning for such a file; what can be given is nothing"),
        ("a.tbl", {"voxel_size": 10.0, "format": "relion5"}, "format= has no meaning"),
        ("a.ndjson", {"voxel_size": 10.0, "tomogram_shape": (1, 1, 1)}, "tomogram_shape= has no meaning"),
        ("a.star", {"voxel_size": 10.0, "tomogram_shape": (1, 1, 1)}, "tomogram_shape= has no meaning"),
        ("a.star", {"voxel_size": 10.0, "format": "relion4", "tomogram_shape": (1, 1, 1)}, "tomogram_shape= has no meaning"),
        ("a.star", {"voxel_size": 10.0, "format": "stopgap", "tomogram_list": "a"}, "tomogram_list= has no meaning"),
        (
            "a.em",
            {"voxel_size": 10.0, "format": "relion5"},
            "unknown format 'relion5' of a motive list; there are av3, artiatomi",
        ),
    ],
)
def test_a_parameter_that_no_writer_of_the_format_uses_is_refused(tmp_path, name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.write_particles(some().assign(tomogram="TS_01"), tmp_path / name, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in POINTS if name != "a.csv"])
def test_positions_in_one_voxel_are_told(tmp_path, name: str) -> None:
    """A list of another unit, such as fractions of the volume, taken for voxels."""
    table = particles.table([[5.0, 6, 7], [6.0, 7, 5.5]], ids=[1, 2], tomogram="TS_01")
    with pytest.warns(UserWarning, match=r"all particles of the tomograms TS_01(.tomostar)? lie within"):
        back(table, tmp_path, name)
    # Particles at one place have none that is known.
    back(table.assign(z=0.0, y=0.0, x=0.0), tmp_path, name)


def test_positions_far_outside_are_told_or_refused(tmp_path) -> None:
    table = particles.table([[100.0, 200, 300], [400.0, 500, 600], [700.0, 100, 4000]], tomogram="TS_01")
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=10.0)
    known = {"voxel_size": 10.0, "tomogram_shape": {"TS_01": (80, 60, 80)}}
    with pytest.warns(UserWarning, match="1 of 3 particles lie far outside of a tomogram of 800 x 600 x 800 Å, first row 2"):
        io.read_particles(path, **known)
    with pytest.raises(ValueError, match=r"3 of 3 particles lie far outside .*voxel_size= must be the Å per pixel"):
        io.read_particles(path, voxel_size=10.0, tomogram_shape=(8, 6, 8))
    below = io.write_particles(table.assign(x=-300.0), tmp_path / "b.csv")
    with pytest.warns(UserWarning, match="3 of 3 particles lie far before the first voxel"):
        io.read_particles(below)
