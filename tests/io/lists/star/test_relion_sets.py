"""Optimisation sets and lists of tomograms of RELION and Warp: where their paths lead, and the tilts that they tell."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomolab import io
from tomolab.io.lists.star import relion_sets

ROWS = "data_particles\n\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n_rlnTomoTiltSeriesPixelSize\n"
ROWS += "TS_A.tomostar 100 200 50 4.0\n"
SET = "data_\n\n_rlnTomoParticlesFile   relion/matching.star\n_rlnTomoTomogramsFile   relion/matching_tomograms.star\n"
GLOBAL = "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoSizeX\n_rlnTomoSizeY\n_rlnTomoSizeZ\n_rlnTomoTiltSeriesPixelSize\n"
GLOBAL += "TS_A.tomostar 400 600 100 4.0\n"


def put(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_star", ".star")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def series(name: str, matrices: np.ndarray) -> str:
    """Block of a list of tomograms with 3 x 3 matrices on (x, y, z)."""
    text = f"\ndata_{name}\n\nloop_\n_rlnTomoProjX\n_rlnTomoProjY\n_rlnTomoProjZ\n_rlnTomoProjW\n_rlnMicrographPreExposure\n"
    for matrix in matrices:
        text += " ".join(f"[{','.join(f'{value:.7f}' for value in row)},12.5]" for row in matrix) + " [0,0,0,1] 3.0\n"
    return text


def relion(tilts: np.ndarray, turn: float = 0.0, lean: float = 0.0) -> np.ndarray:
    """What tomogram.cpp of RELION makes of rlnTomoXTilt, YTilt, ZRot: turned about x, then y, then z, with the right hand."""
    return np.array([Rotation.from_euler("xyz", [lean, tilt, turn], degrees=True).as_matrix() for tilt in tilts])


def warp(angles: np.ndarray, axis: float) -> np.ndarray:
    """What Warp writes, Matrix3.Euler(0, angle, -axis)."""
    a, p = np.radians(angles), np.radians(-axis)
    return np.array(
        [
            [
                [np.cos(p) * np.cos(one), np.sin(p), -np.cos(p) * np.sin(one)],
                [-np.sin(p) * np.cos(one), np.cos(p), np.sin(p) * np.sin(one)],
                [np.sin(one), 0, np.cos(one)],
            ]
            for one in a
        ]
    )


def test_tilts_project_as_the_conventions_say() -> None:
    x, y, z = 10.0, 3.0, 7.0
    for tilt in (-52.0, 64.0):
        for matrix in (relion([tilt])[0], warp([-tilt], 0.0)[0]):
            seen = matrix @ [x, y, z]
            t = np.radians(tilt)
            np.testing.assert_allclose(seen, [x * np.cos(t) + z * np.sin(t), y, z * np.cos(t) - x * np.sin(t)])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(low=st.floats(-85, -1), high=st.floats(1, 85), turn=st.floats(-180, 180), program=st.sampled_from(["relion", "warp"]))
def test_tilts_come_out_of_matrices_however_images_are_turned(
    tmp_path, low: float, high: float, turn: float, program: str
) -> None:
    tilts = np.array([high, 0.0, low])
    matrices = relion(tilts, turn) if program == "relion" else warp(-tilts, turn)
    path = put(tmp_path, tomograms_star=GLOBAL + series("TS_A.tomostar", matrices))
    found = relion_sets.tilts(path)["TS_A.tomostar"]
    np.testing.assert_allclose(found, (low, high), atol=1e-4)


def test_particles_take_their_tilts_from_the_list_that_warp_wrote(tmp_path) -> None:
    tilts = np.arange(-52.0, 65.0, 4.0)
    listed = GLOBAL + "TS_B.tomostar 400 600 100 4.0\n"
    listed += series("TS_A.tomostar", relion(tilts, 85.0)) + series("TS_B.tomostar", relion(tilts + 7, -95.0, lean=4.0))
    path = put(tmp_path, relion__matching_tomograms_star=listed, relion__matching_star=ROWS + "TS_B.tomostar 1 2 3 4.0\n")
    read = io.read_particles(path)
    np.testing.assert_allclose(read[["tilt_min", "tilt_max"]], [[-52, 64], [-45, 71]], atol=0.2)
    np.testing.assert_allclose(read[["tilt_min", "tilt_max"]].iloc[0], [-52, 64], atol=1e-4)
    read = io.read_particles(path, tilts=(-40, 41))
    assert read["tilt_max"].tolist() == [41, 41]
    # The windows of Warp name tomograms without the ending in this list.
    put(tmp_path, relion__matching_tomograms_star=listed.replace(".tomostar", ""))
    with pytest.warns(UserWarning, match=r"the table of tilts: .* TS_A\.tomostar is TS_A, TS_B\.tomostar is TS_B"):
        read = io.read_particles(path)
    np.testing.assert_allclose(read["tilt_max"], [64, 71], atol=0.2)


def test_tilts_of_a_series_in_a_file_of_its_own(tmp_path) -> None:
    listed = GLOBAL.replace("_rlnTomoSizeX", "_rlnTomoTiltSeriesStarFile\n_rlnTomoSizeX").replace(
        "tomostar 4", "tomostar tilts/a.star 4"
    )
    own = "data_TS_A.tomostar\n\nloop_\n_rlnTomoNominalStageTiltAngle\n_rlnTomoXTilt\n_rlnTomoYTilt\n_rlnTomoZRot\n"
    put(tmp_path, tilts__a_star=own + "-51 0 -52 85\n63 0 64 85\n")
    path = put(tmp_path, tomograms_star=listed)
    assert relion_sets.tilts(path) == {"TS_A.tomostar": (-52, 64)}
    put(tmp_path, tilts__a_star=series("TS_A.tomostar", relion([-33.0, 0, 44.0], 12.0)))
    np.testing.assert_allclose(relion_sets.tilts(path)["TS_A.tomostar"], (-33, 44), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (series("TS_A.tomostar", relion([0.0])).replace("12.5]", "12.5"), r"must be \[x,y,z,w\] with four numbers, got"),
        (series("TS_A.tomostar", relion([0.0])).replace(",12.5]", "]"), r"data_TS_A\.tomostar: rlnTomoProjZ must be"),
        (series("TS_A.tomostar", relion([0.0])).replace("12.5", "nan"), "four numbers"),
        (series("TS_A.tomostar", np.zeros((1, 3, 3))), "not that of a tilt about y in 1 images; give tilts="),
        (series("TS_A.tomostar", relion([0.0, 0.0], lean=50.0)), "not that of a tilt about y in 2 images; give tilts="),
        (series("TS_A.tomostar", np.zeros((0, 3, 3))), "not that of a tilt about y in 0 images"),
    ],
)
def test_matrices_that_are_none_are_named(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relion_sets.tilts(put(tmp_path, tomograms_star=GLOBAL + text))


@pytest.mark.parametrize("run_in", [".", "relion", "elsewhere"])
def test_paths_of_a_set_count_from_where_warp_ran(tmp_path, monkeypatch, run_in: str) -> None:
    """The set lies one folder below, or beside the folder in which the user works now."""
    put(tmp_path, p__relion__matching_tomograms_star=GLOBAL, p__relion__matching_star=ROWS, elsewhere__other_star=ROWS)
    path = put(tmp_path, p__relion__matching_optimisation_set_star=SET)
    monkeypatch.chdir(tmp_path / "p" / run_in if run_in != "elsewhere" else tmp_path / "elsewhere")
    given_as = {
        ".": "relion/matching_optimisation_set.star",
        "relion": "matching_optimisation_set.star",
        "elsewhere": str(path),
    }
    read = io.read_particles(given_as[run_in], tilts=(-60, 60))
    assert read[["x", "y", "z"]].to_numpy().tolist() == [[400, 800, 200]]


def test_a_set_may_lie_beside_the_working_folder(tmp_path, monkeypatch) -> None:
    put(tmp_path, work__relion__matching_star=ROWS, work__relion__matching_tomograms_star=GLOBAL)
    path = put(tmp_path, sets__a_star=SET)
    with pytest.raises(
        FileNotFoundError, match=r"names relion/matching\.star, which is not in .*, a folder above, or the working"
    ):
        io.read_particles(path, tilts=(-60, 60))
    monkeypatch.chdir(tmp_path / "work")
    assert io.read_particles(path, tilts=(-60, 60))["x"].tolist() == [400]


def test_two_files_that_fit_are_said(tmp_path) -> None:
    put(tmp_path, p__relion__matching_star=ROWS, p__relion__matching_tomograms_star=GLOBAL, relion__matching_star=ROWS)
    path = put(tmp_path, p__relion__set_star=SET)
    with pytest.raises(
        ValueError, match=r"names relion/matching\.star, and there are several: .*; read the list that you mean"
    ):
        io.read_particles(path, tilts=(-60, 60))
    # A job of RELION counts from its project alone.
    put(tmp_path, p__Refine3D__job012__relion__matching_star=ROWS.replace("100", "7"))
    job = put(tmp_path, p__Refine3D__job012__run_optimisation_set_star=SET)
    assert io.read_particles(job, tilts=(-60, 60))["x"].tolist() == [400]


def test_a_set_names_nothing_by_links_out_of_a_folder_above(tmp_path) -> None:
    put(tmp_path, secret__matching_star=ROWS)
    path = put(tmp_path, p__sets__a_star=SET)
    (tmp_path / "p/relion").symlink_to(tmp_path / "secret")
    with pytest.raises(FileNotFoundError, match="which is not in"):
        io.read_particles(path, tilts=(-60, 60))


@pytest.mark.parametrize("column", ["rlnTomoName", "rlnMicrographName"])
def test_missing_names_are_counted(tmp_path, column: str) -> None:
    rows = ROWS.replace("rlnTomoName", column)
    path = put(tmp_path, a_star=rows.replace("TS_A.tomostar", "nan") + "nan 1 2 3 4.0\n")
    with pytest.raises(
        ValueError, match=rf"{column} names no tomogram in 2 of 2 rows \(missing or nan\), rows 0, 1; give tomogram="
    ):
        io.read_particles(path, tilts=(-60, 60))
    assert io.read_particles(path, tilts=(-60, 60), tomogram="007")["tomogram"].tolist() == ["007", "007"]
    put(tmp_path, a_star=rows + "<NA> 1 2 3 4.0\n001 1 2 3 4.0\nnan 1 2 3 4.0\n'' 1 2 3 4.0\n")
    with pytest.raises(ValueError, match=rf"{column} names no tomogram in 3 of 5 rows \(missing or nan\), rows 1, 3, 4$"):
        io.read_particles(path, tilts=(-60, 60))
    put(tmp_path, a_star=rows.replace("TS_A.tomostar", "001") + "0010 1 2 3 4.0\n")
    assert io.read_particles(path, tilts=(-60, 60))["tomogram"].tolist() == ["001", "0010"]


def test_a_list_of_tomograms_without_a_name_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="rlnTomoName has no value in 1 of 2 rows, first row 1"):
        relion_sets.tomograms(put(tmp_path, tomograms_star=GLOBAL + "nan 400 600 100 4.0\n"))


def test_positions_outside_of_the_tomogram_show_the_wrong_pixel_size(tmp_path) -> None:
    """A list that says by names to be Warp's, but counts unbinned pixels."""
    columns = ["OpticsGroup", "TomoTiltSeriesPixelSize", "ImagePixelSize", "ImageDimensionality"]
    head = "data_optics\n\nloop_\n" + "".join(f"_rln{column}\n" for column in columns) + "1 1.0 4.0 2\n\n"
    rows = ROWS.replace("_rlnTomoTiltSeriesPixelSize", "_rlnOpticsGroup").replace("4.0\n", "1\n")
    path = put(
        tmp_path,
        m_star=head + rows.replace("100 200 50", "1200 2200 350"),
        m_tomograms_star=GLOBAL.replace("400 600 100 4.0", "1600 2400 400 1.0"),
    )
    path = tmp_path / "m.star"
    with pytest.raises(
        ValueError, match=r"1 of 1 particles would lie outside .* pixels of 4 Å, first row 0; .* give voxel_size="
    ):
        io.read_particles(path, tilts=(-60, 60))
    with pytest.warns(UserWarning, match="voxel_size=1 is taken, as it was given"):
        assert io.read_particles(path, tilts=(-60, 60), voxel_size=1.0)["x"].tolist() == [1200]
    put(tmp_path, m_star=head + rows)
    assert io.read_particles(path, tilts=(-60, 60))["x"].tolist() == [400]


def test_pixel_sizes_of_the_optics_table_count(tmp_path) -> None:
    head = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnTomoTiltSeriesPixelSize\n1 4.0\n2 2.0\n\n"
    rows = ROWS.replace("_rlnTomoTiltSeriesPixelSize", "_rlnTomoTiltSeriesPixelSize\n_rlnOpticsGroup").replace(
        "4.0\n", "4.0 1\n"
    )
    path = put(tmp_path, a_star=head + rows + "TS_B.tomostar 100 200 50 10.0 2\n")
    with pytest.warns(UserWarning, match="rlnTomoTiltSeriesPixelSize of the particles differ from those of the optics table"):
        assert io.read_particles(path, tilts=(-60, 60))["x"].tolist() == [400, 200]
