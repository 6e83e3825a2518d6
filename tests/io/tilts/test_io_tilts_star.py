"""Tilt series of RELION 5 and wedge lists of STOPGAP come back as they were written."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import io

RELION = {
    "rlnMicrographMovieName": ["frames/TS_01_000_0.0.tif", "frames/TS_01_001_3.0.tif", "frames/TS_01_002_-3.0.tif"],
    "rlnTomoTiltMovieIndex": [1, 2, 3],
    "rlnTomoNominalStageTiltAngle": [0.001, 3.0011, -2.9986],
    "rlnTomoNominalTiltAxisAngle": [85.0] * 3,
    "rlnTomoNominalDefocus": [-4.0] * 3,
    "rlnMicrographPreExposure": [0.0, 3.0, 6.0],
    "rlnMicrographName": [f"MotionCorr/job002/frames/TS_01_{i}.mrc" for i in range(3)],
    "rlnDefocusU": [39424.76, 39158.6, 39430.1],
    "rlnDefocusV": [38845.8, 38873.5, 39249.9],
}
ALIGNED = {
    "rlnTomoXTilt": [0.0] * 3,
    "rlnTomoYTilt": [9.02, 12.02, 6.02],
    "rlnTomoZRot": [85.27, 85.28, 85.26],
    "rlnTomoXShiftAngst": [-64.2, -70.7, -67.3],
    "rlnTomoYShiftAngst": [2.6, -32.6, 28.2],
}
WEDGES = {
    "tomo_num": [1, 1, 1, 2, 2],
    "pixelsize": [2.5] * 5,
    "tilt_angle": [-3.0, 0.0, 3.0, -6.0, 0.0],
    "defocus": [2.1, 2.2, 2.3, 3.1, 3.2],
    "exposure": [6.0, 0.0, 3.0, 6.0, 3.0],
    "voltage": [300] * 5,
}


def block(name: str, columns: dict[str, list], *, loop: bool = True) -> str:
    if not loop:
        return f"data_{name}\n\n" + "".join(f"_{key} {values[0]}\n" for key, values in columns.items()) + "\n"
    rows = zip(*columns.values(), strict=True)
    return (
        f"data_{name}\n\nloop_\n"
        + "".join(f"_{key} #{i}\n" for i, key in enumerate(columns, 1))
        + "\n".join([" ".join(map(str, row)) for row in rows])
        + "\n\n"
    )


def read(folder: Path, text: str, **options):
    (folder / "a.star").write_text(text)
    return io.tilts.read_tilt_star(folder / "a.star", **options)


def test_a_series_that_is_not_aligned(tmp_path) -> None:
    found = read(tmp_path, "# version 30001\n\n" + block("TS_01", RELION))
    assert found["tilt"].tolist() == found["stage_tilt"].tolist() == RELION["rlnTomoNominalStageTiltAngle"]
    assert found["dose"].tolist() == [0, 3, 6]
    assert found["order"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found["defocus"], [3.913528, 3.901605, 3.934], atol=1e-9)
    assert found["target_defocus"].tolist() == [4, 4, 4]
    assert found["axis"].tolist() == [85, 85, 85]
    assert found["image"].tolist() == ["TS_01_0.mrc", "TS_01_1.mrc", "TS_01_2.mrc"]
    assert found[["shift_x", "shift_y", "level_x"]].isna().all(axis=None)


def test_an_aligned_series_has_its_refined_tilts(tmp_path) -> None:
    found = read(tmp_path, block("TS_01", ALIGNED | RELION))
    assert found["tilt"].tolist() == ALIGNED["rlnTomoYTilt"]
    assert found["stage_tilt"].tolist() == RELION["rlnTomoNominalStageTiltAngle"]
    assert found["axis"].tolist() == ALIGNED["rlnTomoZRot"]
    assert found["shift_x"].tolist() == ALIGNED["rlnTomoXShiftAngst"]
    assert found["shift_y"].tolist() == ALIGNED["rlnTomoYShiftAngst"]
    assert found["level_x"].tolist() == [0, 0, 0]


def test_a_series_of_one_image(tmp_path) -> None:
    one = {key: values[1:2] for key, values in (RELION | ALIGNED).items()}
    for loop in (True, False):
        found = read(tmp_path, block("TS_01", one, loop=loop))
        assert found[["tilt", "dose", "axis"]].to_numpy().tolist() == [[12.02, 3, 85.28]]
    bare = read(tmp_path, block("TS_01", {"rlnTomoYTilt": [3.0]}))
    assert bare["tilt"].tolist() == [3]
    assert bare[["dose", "defocus", "axis", "target_defocus"]].isna().all(axis=None)
    assert bare["image"].tolist() == [""]


def test_sections_of_a_stack_tell_the_order(tmp_path) -> None:
    names = ["000002@TS_01.mrcs", "000003@TS_01.mrcs", "000001@TS_01.mrcs"]
    found = read(tmp_path, block("TS_01", RELION | {"rlnMicrographName": names}))
    assert found["stage_tilt"].tolist() == [-2.9986, 0.001, 3.0011]
    assert found["dose"].tolist() == [6, 0, 3]
    with pytest.raises(ValueError, match=r"rlnMicrographName names a section of TS_01.mrcs twice"):
        read(tmp_path, block("TS_01", RELION | {"rlnMicrographName": [names[0], *names[:2]]}))


def test_several_tomograms_are_asked_for(tmp_path) -> None:
    text = block("TS_01", RELION) + block("TS_02", {key: values[:2] for key, values in RELION.items()})
    assert len(read(tmp_path, text, tomogram="TS_02")) == 2
    with pytest.raises(
        ValueError, match=r"a.star: the file holds the tilts of 2 tomograms \(TS_01, TS_02\); say which with tomogram="
    ):
        read(tmp_path, text)
    with pytest.raises(ValueError, match="there is no tomogram 'TS_03' in the file; it holds TS_01, TS_02"):
        read(tmp_path, text, tomogram="TS_03")
    assert len(read(tmp_path, block("TS_01", RELION), tomogram="TS_01")) == 3


@pytest.mark.parametrize("loop", [True, False])
def test_a_list_of_tomograms_names_the_file_that_is_meant(tmp_path, loop: bool) -> None:
    listed = {"rlnTomoName": ["TS_01"], "rlnVoltage": [300], "rlnTomoTiltSeriesStarFile": ["tilt_series/TS_01.star"]}
    with pytest.raises(
        ValueError,
        match=r"a list of tomograms, not a tilt series; give the file that it names: tilt_series/TS_01.star of TS_01",
    ):
        read(tmp_path, block("global", listed, loop=loop))
    with pytest.raises(ValueError, match=r"there are no tilts .*data_particles has rlnCoordinateX"):
        read(tmp_path, block("particles", {"rlnCoordinateX": [1]}))


def test_wedge_lists(tmp_path) -> None:
    text = block("stopgap_wedgelist", WEDGES)
    found = read(tmp_path, text, tomogram=1)
    assert found["tilt"].tolist() == [-3, 0, 3]
    assert found["defocus"].tolist() == [2.1, 2.2, 2.3]
    assert found["dose"].tolist() == [6, 0, 3]
    # Without an image that nothing was before, exposures may contain that of the image itself.
    found = read(tmp_path, text, tomogram="2")
    assert found["dose"].isna().all()
    assert found["stopgap_exposure"].tolist() == [6, 3]
    with pytest.raises(ValueError, match=r"the tilts of 2 tomograms \(1, 2\); say which with tomogram="):
        read(tmp_path, text)
    one = {key: values[:1] for key, values in WEDGES.items() if key not in ("exposure", "defocus")}
    found = read(tmp_path, block("stopgap_wedgelist", one | {"defocus1": [2.0], "defocus2": [2.5]}, loop=False))
    assert found[["tilt", "defocus"]].to_numpy().tolist() == [[-3, 2.25]]
    assert found["dose"].isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block("TS_01", RELION | {"rlnTomoNominalStageTiltAngle": [0, 95, 0]}), "row 1: a tilt lies within ±90°, got 95"),
        (block("TS_01", RELION | {"rlnMicrographPreExposure": [0, "x", 0]}), "rlnMicrographPreExposure of row 1: 'x'"),
        (block("stopgap_wedgelist", {"tomo_num": [1]}), "lacks the columns tilt_angle"),
        (
            block("stopgap_wedgelist", {"tomo_num": [1], "tilt_angle": [91]}),
            "image 0 of the tomogram: a tilt lies within ±90°, got 91",
        ),
        ("nothing", "it has no tables"),
        ("data_a\n\nloop_\n_rlnTomoYTilt #1\n", "the tilt series has no images"),
        ("data_stopgap_wedgelist\n\nloop_\n_tomo_num\n_tilt_angle\n", "the wedge list has no rows"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(*[st.floats(-90, 90, allow_subnormal=False)] * 2, st.floats(0, 300)), min_size=1, max_size=20))
def test_any_series_comes_back(tmp_path_factory, rows) -> None:
    tilt, axis, dose = (list(column) for column in zip(*rows, strict=True))
    columns = {"rlnTomoZRot": axis, "rlnTomoYTilt": tilt, "rlnMicrographPreExposure": dose}
    found = read(tmp_path_factory.mktemp("star"), block("a", columns))
    np.testing.assert_array_equal(found[["tilt", "axis", "dose"]], np.array([tilt, axis, dose]).T)
