"""Lists of RELION 2 to 5, Warp and M mean what these mean, with their lists of tomograms and optimisation sets."""

import shutil
import subprocess
from pathlib import Path

import eulerangles
import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from tomolab import io, particles
from tomolab.io.lists.star import relion_sets

ANGLES = ("Rot", "Tilt", "Psi")
TOMOGRAMS = """
# version 50001

data_global

loop_
_rlnTomoName #1
_rlnTomoHand #2
_rlnTomoTiltSeriesPixelSize #3
_rlnTomoSizeX #4
_rlnTomoSizeY #5
_rlnTomoSizeZ #6
001 -1.0 1.5 4000 3000 1001
TS_02 1.0 2.0 4096 4096 2000
"""
CENTRED = """
data_general

_rlnTomoSubTomosAre2DStacks 1

data_particles

loop_
_rlnTomoName
_rlnCenteredCoordinateXAngst
_rlnCenteredCoordinateYAngst
_rlnCenteredCoordinateZAngst
_rlnTomoHand
001 -100 0 25.5 -1.0
TS_02 10 20 30 1.0
"""
PIXELS = """
data_particles

loop_
_rlnTomoName
_rlnTomoParticleId
_rlnCoordinateX
_rlnCoordinateY
_rlnCoordinateZ
_rlnOriginXAngst
001 7 1000 2000 300.5 4.5
TS_02 8 10 20 30 0
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("given_as", ["beside", "parameter", "set"])
def test_relion5_takes_size_and_middle_from_the_list_of_tomograms(tmp_path, given_as: str) -> None:
    path = put(tmp_path, "Refine3D/job012/run_data.star", CENTRED)
    arguments = {}
    if given_as == "beside":
        put(tmp_path, "Refine3D/job012/tomograms.star", TOMOGRAMS)
    elif given_as == "parameter":
        arguments["tomogram_list"] = put(tmp_path, "elsewhere.star", TOMOGRAMS)
    else:
        put(tmp_path, "Tomograms/job009/tomograms.star", TOMOGRAMS)
        path = put(
            tmp_path,
            "Refine3D/job012/run_optimisation_set.star",
            "data_\n_rlnTomoParticlesFile Refine3D/job012/run_data.star\n"
            "_rlnTomoTomogramsFile Tomograms/job009/tomograms.star\n",
        )
    read = io.read_particles(path, tilts=(-60, 60), **arguments)
    # (w/2, h/2, d/2) of the unbinned tomogram, also where a size is odd.
    first = [25.5 + 1001 / 2 * 1.5, 3000 / 2 * 1.5, 4000 / 2 * 1.5 - 100]
    np.testing.assert_allclose(particles.positions(read), [first, [30 + 2000, 20 + 4096, 10 + 4096]])
    assert read["tomogram"].tolist() == ["001", "TS_02"]
    assert read["rlnTomoHand"].tolist() == [-1.0, 1.0]
    # The same tomogram, binned, has the same middle.
    shapes = {"001": (100.1, 300, 400), "TS_02": (200, 409.6, 409.6)}
    if given_as == "parameter":
        two = [io.read_particles(path, tilts=(-60, 60), voxel_size=15.0, tomogram_shape=shapes) for _ in "x"]
        np.testing.assert_allclose(two[0].loc[0, ["z", "y", "x"]].astype(float), first)


def test_relion4_counts_unbinned_pixels(tmp_path) -> None:
    path = put(tmp_path, "particles.star", PIXELS)
    with pytest.raises(ValueError, match="give voxel_size= or tomogram_list="):
        io.read_particles(path, tilts=(-60, 60))
    put(tmp_path, "tomograms.star", TOMOGRAMS)
    read = io.read_particles(path, tilts=(-60, 60))
    np.testing.assert_allclose(particles.positions(read), [[450.75, 3000, 1495.5], [60, 40, 20]])
    assert read["rlnTomoParticleId"].tolist() == [7, 8]
    with pytest.raises(ValueError, match=r"of the list of tomograms is 1\.5, 2 Å, but voxel_size=10 was given"):
        io.read_particles(path, tilts=(-60, 60), voxel_size=10.0, tomogram_list=tmp_path / "tomograms.star")
    stated = put(
        tmp_path,
        "stated.star",
        PIXELS.replace("_rlnOriginXAngst", "_rlnTomoTiltSeriesPixelSize").replace("300.5 4.5", "300.5 4"),
    )
    with pytest.raises(ValueError, match=r"rlnTomoTiltSeriesPixelSize is .* that of the list of tomograms is"):
        io.read_particles(stated, tilts=(-60, 60), tomogram_list=tmp_path / "tomograms.star")


@pytest.mark.parametrize("version", ["relion4", "relion5"])
def test_what_is_written_for_tilt_series_counts_their_pixels(tmp_path, version: str) -> None:
    listed = put(tmp_path, "lists/tomograms.star", TOMOGRAMS)
    table = particles.table(
        [[300.0, 200.0, 100.0], [30, 20, 10]], tomogram=["001", "TS_02"], ids=[4, 9], angles=[[10, 20, 30]] * 2
    )
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=12.0, format=version, tomogram_list=listed)
    blocks = starfile.read(path, always_dict=True, parse_as_string=["rlnTomoName"])
    rows, optics = blocks["particles"], blocks["optics"]
    assert optics["rlnTomoTiltSeriesPixelSize"].tolist() == [1.5, 2.0]
    assert rows["rlnTomoName"].tolist() == ["001", "TS_02"]
    if version == "relion4":
        assert rows[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy().round(4).tolist() == [
            [66.6667, 133.3333, 200],
            [5, 10, 15],
        ]
        assert rows["rlnTomoParticleId"].tolist() == [4, 9]
    else:
        found = rows[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy().tolist()
        assert found == [[100 - 3000, 200 - 2250, 300 - 750.75], [10 - 4096, 20 - 4096, 30 - 2000]]
    read = io.read_particles(path, **({"tomogram_list": listed} if version == "relion5" else {}))
    np.testing.assert_allclose(particles.positions(read), particles.positions(table), atol=1e-5)
    with pytest.raises(ValueError, match="the list of tomograms lacks TS_03; it has 001, TS_02"):
        io.write_particles(
            table.assign(tomogram="TS_03"), tmp_path / "b.star", voxel_size=12.0, format=version, tomogram_list=listed
        )


@pytest.mark.parametrize("name", ["../outside.star", "/etc/hostname", "link.star"])
def test_an_optimisation_set_names_nothing_outside_its_project(tmp_path, name: str) -> None:
    project = tmp_path / "project"
    put(tmp_path, "outside.star", PIXELS)
    path = put(project, "optimisation_set.star", f"data_\n_rlnTomoParticlesFile {name}\n")
    (project / "link.star").symlink_to(tmp_path / "outside.star")
    with pytest.raises(ValueError, match=r"may lie outside of its folder, and is not followed|leads out of"):
        io.read_particles(path, voxel_size=1.0, tilts=(-60, 60))
    path.write_text("data_\n_rlnTomoParticlesFile none.star\n")
    with pytest.raises(FileNotFoundError, match=r"a file names none\.star, which is not in"):
        io.read_particles(path, voxel_size=1.0, tilts=(-60, 60))


def test_tilts_are_those_of_the_series_that_relion5_names(tmp_path) -> None:
    series = "data_TS\nloop_\n_rlnTomoNominalStageTiltAngle\n_rlnTomoYTilt\n0 1.5\n-51 -49.5\n60 61.5\n"
    put(tmp_path, "Align/job003/tilt_series/a.star", series)
    put(tmp_path, "Align/job003/tilt_series/b.star", series.replace("_rlnTomoYTilt", "_rlnOther"))
    text = TOMOGRAMS.replace("_rlnTomoSizeZ #6", "_rlnTomoSizeZ #6\n_rlnTomoTiltSeriesStarFile #7")
    text = text.replace("1001\n", "1001 Align/job003/tilt_series/a.star\n").replace(
        "2000\n", "2000 Align/job003/tilt_series/b.star\n"
    )
    listed = put(tmp_path, "Tomograms/job009/tomograms.star", text)
    path = put(tmp_path, "Extract/job010/particles.star", CENTRED)
    read = io.read_particles(path, tomogram_list=listed)
    assert read[["tilt_min", "tilt_max"]].to_numpy().tolist() == [[-49.5, 61.5], [-51, 60]]
    read = io.read_particles(path, tomogram_list=listed, tilts=(-40, 40))
    assert read[["tilt_min", "tilt_max"]].to_numpy().tolist() == [[-40, 40], [-40, 40]]
    (tmp_path / "Align/job003/tilt_series/b.star").write_text("data_TS\n_rlnOther 1\n")
    with pytest.raises(ValueError, match=r"b\.star has neither rlnTomoYTilt nor rlnTomoNominalStageTiltAngle"):
        io.read_particles(path, tomogram_list=listed)
    listed.write_text(text.replace("Align/job003/tilt_series/b.star", "../b.star"))
    with pytest.raises(ValueError, match=r"names \.\./b\.star, which may lie outside of its folder.*give tomogram_list="):
        io.read_particles(path, tomogram_list=listed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOMOGRAMS.replace("TS_02", "001"), "has 001 more than once"),
        (TOMOGRAMS.replace("1.5", "0"), "positive numbers, but those of 001"),
        (TOMOGRAMS.replace("1.5", "unknown"), "not numbers, first rlnTomoTiltSeriesPixelSize of row 0: 'unknown'"),
        (TOMOGRAMS.replace("rlnTomoName", "rlnOther"), "this is no list of tomograms: no table has rlnTomoName"),
    ],
)
def test_a_wrong_list_of_tomograms_is_named(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"tomograms\.star: .*{message}"):
        relion_sets.tomograms(put(tmp_path, "tomograms.star", text))
    with pytest.raises(FileNotFoundError, match="no list of tomograms"):
        io.read_particles(put(tmp_path, "a.star", CENTRED), tilts=(-60, 60), tomogram_list=tmp_path / "none.star")


def test_a_list_of_tomograms_without_sizes_gives_pixels_only(tmp_path) -> None:
    put(tmp_path, "tomograms.star", "data_global\n_rlnTomoName 001\n_rlnTomoTiltSeriesPixelSize 1.5\n")
    with pytest.raises(ValueError, match=r"a tomograms\.star that has the sizes rlnTomoSizeX, Y, Z"):
        io.read_particles(put(tmp_path, "a.star", CENTRED), tilts=(-60, 60))


def test_old_origins_are_pixels_of_the_images(tmp_path) -> None:
    """RELION 2: coordinates in pixels of a tomogram of 8 Å, images of 4 Å: 5 µm over a magnification of 12,500."""
    names = ["MicrographName", *(f"Coordinate{axis}" for axis in "XYZ"), "Magnification", "DetectorPixelSize"]
    names += [*(f"Origin{axis}" for axis in "XYZ"), *(f"Angle{name}" for name in ANGLES)]
    head = "data_\n\nloop_\n" + "".join(f"_rln{name} #{place}\n" for place, name in enumerate(names, 1))
    path = put(tmp_path, "a.star", head + "001.mrc 100 200 50 12500 5.0 0.5 -1 2 137.7 1.1777 42.727\n")
    read = io.read_particles(path, tilts=(-60, 60), voxel_size=8.0)
    np.testing.assert_allclose(particles.positions(read), [[400 - 8, 1600 + 4, 800 - 2]])
    # Without another word, coordinates are pixels of the images too.
    read = io.read_particles(path, tilts=(-60, 60))
    np.testing.assert_allclose(particles.positions(read), [[200 - 8, 800 + 4, 400 - 2]])
    assert read["tomogram"].tolist() == ["001.mrc"]


@pytest.mark.parametrize("version", ["relion30", "warp"])
def test_one_table_is_what_relion_had_before_optics(tmp_path, version: str) -> None:
    table = particles.table(
        [[30.0, 20.0, 10.0]], tomogram="TS_01", angles=[[10.0, 20.0, 30.0]], label="a", rlnImagePixelSize=2.0
    )
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=4.0, format=version)
    ((name, rows),) = starfile.read(path, always_dict=True).items()
    row = rows.iloc[0]
    assert name == ""
    assert [row[f"rlnCoordinate{axis}"] for axis in "XYZ"] == [2.5, 5, 7.5]
    assert [row[f"rlnOrigin{axis}"] for axis in "XYZ"] == [0, 0, 0]
    assert row["rlnDetectorPixelSize"] * 1e4 / row["rlnMagnification"] == 4.0
    assert row["rlnMicrographName"] == ("TS_01.tomostar" if version == "warp" else "TS_01")
    assert ("rlnPixelSize" in rows) == (version == "warp")
    assert not {"rlnImagePixelSize", "rlnOpticsGroup"} & set(rows)
    assert "version" not in path.read_text()


@pytest.mark.parametrize("time", ["", "1"])
def test_m_has_angstroms(tmp_path, time: str) -> None:
    columns = [
        f"wrp{name}{time}" for name in ("CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt", "AnglePsi")
    ]
    columns += ["wrpSourceName", "wrpRandomSubset", *(["wrpCoordinateX2"] if time else [])]
    head = "data_\n\nloop_\n" + "".join(f"_{name} #{place}\n" for place, name in enumerate(columns, 1))
    path = put(tmp_path, "a.star", head + "10.5 20 30 137.7 1.1777 42.727 TS_01.tomostar 1" + (" 11.5\n" if time else "\n"))
    read = io.read_particles(path, tilts=(-60, 60))
    assert particles.positions(read).tolist() == [[30, 20, 10.5]]
    np.testing.assert_allclose(particles.matrices(read)[0][::-1, ::-1], matrix([137.7, 1.1777, 42.727]), atol=1e-9)
    assert read["tomogram"].tolist() == ["TS_01.tomostar"]
    assert read["wrpRandomSubset"].tolist() == [1]
    assert not time or read["wrpCoordinateX2"].tolist() == [11.5]


def matrix(angles: list[float]) -> np.ndarray:
    """What eulerangles says of RELION's angles, from reference to tomogram."""
    passive = eulerangles.euler2matrix(np.array(angles), axes="zyz", intrinsic=True, right_handed_rotation=True)
    return passive.squeeze().T


@given(st.tuples(st.floats(-180, 180), st.floats(1, 179), st.floats(-180, 180)))
def test_angles_are_those_of_eulerangles(angles: tuple) -> None:
    ours = particles.matrices(particles.table([[0, 0, 0]], angles=[angles]))[0][::-1, ::-1]
    np.testing.assert_allclose(ours, matrix(list(angles)), atol=1e-9)


def test_repeated_ids_are_refused_with_their_numbers(tmp_path) -> None:
    text = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n_tomolabParticleId\n"
    path = put(tmp_path, "a.star", text + "a 1 2 3 5\na 1 2 3 6\na 1 2 3 5\n")
    with pytest.raises(ValueError, match=r"2 of 3 particles \(particle_id 5, 5\) have an id that another row has too"):
        io.read_particles(path, voxel_size=1.0, tilts=(-60, 60))


def test_a_single_row_keeps_its_names(tmp_path) -> None:
    table = pd.DataFrame(
        {"rlnMicrographName": ["001"], "rlnGroupName": ["007"], **{f"rlnCoordinate{axis}": [1.0] for axis in "XYZ"}}
    )
    starfile.write({"particles": table}, tmp_path / "a.star")
    read = io.read_particles(tmp_path / "a.star", voxel_size=1.0, tilts=(-60, 60))
    assert read[["tomogram", "rlnGroupName"]].to_numpy().tolist() == [["001", "007"]]


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_star_handler") is None, reason="RELION is not installed (apt-get install relion)")
@pytest.mark.parametrize("version", ["relion30", "warp", "relion31", "relion4", "relion5"])
def test_relion_reads_what_we_write_and_we_what_it_writes(tmp_path, version: str) -> None:
    """RELION's own programs pass our list on; those of 3.0 it turns into one with optics groups."""
    rng = np.random.default_rng(3)
    table = particles.table(
        rng.uniform(0, 900, (4, 3)),
        angles=rng.uniform(1, 179, (4, 3)),
        tomogram=["001", "TS_2", "TS_2", "001"],
        ids=[7, 3, 5, 4],
        label=["two words", "b", "12", "d"],
        rlnImageName=["a.mrc", "b.mrc", "c.mrc", "d.mrc"],
    )
    if version not in ("relion30", "warp"):
        table = table.assign(rlnVoltage=300.0, rlnSphericalAberration=2.7)
    known = {"tomogram_shape": (100, 111, 120)} if version == "relion5" else {}
    io.write_particles(table, tmp_path / "a.star", voxel_size=8.0, format=version, **known)
    command = ["relion_star_handler", "--i", "a.star", "--o", "b.star"]
    if version in ("relion30", "warp"):
        command[0], extra = "relion_convert_star", ["--kV", "300", "--Cs", "2.7", "--Q0", "0.1", "--box_size", "32"]
        command += extra
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    if version in ("relion30", "warp", "relion5"):
        # Images may have been rescaled for all that a converted list says.
        known["voxel_size"] = 8.0
    read = io.read_particles(tmp_path / "b.star", **known)
    np.testing.assert_allclose(particles.positions(read), particles.positions(table), atol=1e-4)
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(table), atol=1e-5)
    assert read["tomogram"].str.removesuffix(".tomostar").tolist() == table["tomogram"].tolist()
    for column in ("particle_id", "label", "rlnImageName"):
        assert read[column].tolist() == table[column].tolist(), column


def test_halves_go_out_in_the_words_of_relion(tmp_path: Path) -> None:
    places = 100.0 * np.arange(1, 13).reshape(4, 3)
    table = particles.table(places, tilts=(-60, 60), half=[1, 2, 2, 1], rlnRandomSubset=[2, 2, 2, 2])
    path = tmp_path / "out.star"
    io.write_particles(table, path, voxel_size=10.0)
    assert starfile.read(path)["particles"]["rlnRandomSubset"].tolist() == [1, 2, 2, 1]
    back = io.read_particles(path)
    assert back["half"].tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("name", ["None", "NA", "n/a", "null", "nan", "<NA>"])
def test_what_says_that_a_tomogram_has_no_name_is_none(tmp_path: Path, name: str) -> None:
    head = "data_particles\n\nloop_\n_rlnTomoName\n" + "".join(f"_rlnCoordinate{axis}\n" for axis in "XYZ")
    path = put(tmp_path, "a.star", head + f"{name} 10 20 30\nTS_1 40 50 60\n")
    with pytest.raises(ValueError, match=r"rlnTomoName names no tomogram in 1 of 2 rows .* rows 0"):
        io.read_particles(path, voxel_size=10.0, tilts=(-60, 60))


def test_a_list_of_ours_without_boxes_states_one_pixel_size(tmp_path: Path) -> None:
    """Whole coordinates and names of Warp, as they come from its lists: nothing there may be taken for another unit."""
    table = particles.table(
        [[67.5, 270.0, 135.0], [135.0, 540.0, 1350.0]], tomogram="TS_1.tomostar", rlnTomoTiltSeriesPixelSize=1.35
    )
    path = io.write_particles(table, tmp_path / "a.star", voxel_size=5.4, format="relion4")
    assert starfile.read(path, always_dict=True)["optics"]["rlnImagePixelSize"].tolist() == [1.35]
    np.testing.assert_allclose(particles.positions(io.read_particles(path)), particles.positions(table))
    with pytest.raises(ValueError, match=r"rlnTomoTiltSeriesPixelSize is 1.35 Å, but voxel_size=5.4 was given"):
        io.read_particles(path, voxel_size=5.4)


def test_particles_of_two_lists_need_the_pixel_sizes_of_both(tmp_path: Path) -> None:
    ours = particles.table([[100.0, 200, 300]], tomogram="TS_1", rlnTomoTiltSeriesPixelSize=1.35)
    both = pd.concat([ours, particles.table([[400.0, 500, 600]], tomogram="TS_2", ids=[1])], ignore_index=True)
    with pytest.raises(ValueError, match=r"rlnTomoTiltSeriesPixelSize is not known for 1 of 2 particles.*give tomogram_list="):
        io.write_particles(both, tmp_path / "a.star", voxel_size=10.0, format="relion4")
