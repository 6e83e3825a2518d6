"""EMAN2 counts boxes from the middle of the tomogram, in pixels of the tilt images; older lists from its corner."""

import json
from pathlib import Path

import numpy as np
import pytest

from tomolab import io, particles

KNOWN = {"voxel_size": 8.0, "tilts": (-60, 60)}
SHAPE = (101, 200, 300)


def put(folder: Path, boxes: object, name: str = "TS_01_info.json", **others: object) -> Path:
    content = {"boxes_3d": boxes, "class_list": {"0": {"name": "ribosome", "boxsize": 32}, "2": {"name": "virus"}}, **others}
    (folder / name).write_text(json.dumps(content, indent=1))
    return folder / name


def shown(box: list, unbinned: float, voxel_size: float) -> list[float]:
    """Voxels xyz at which the boxer of EMAN2 shows a box: b / apix * apix_unbin + n // 2."""
    return [b / voxel_size * unbinned + n // 2 for b, n in zip(box, SHAPE[::-1], strict=True)]


def test_boxes_count_from_the_middle_of_the_tomogram(tmp_path: Path) -> None:
    boxes = [[-40.0, 12.5, 3.0, "manual", 0.0, 0], [100, -200, 10, "tm", 4.5, 2, 0.25]]
    read = io.read_particles(put(tmp_path, boxes, apix_unbin=2.0), tomogram_shape=SHAPE, **KNOWN)
    expected = [np.array(shown(box[:3], 2.0, 8.0))[::-1] * 8.0 for box in boxes]
    np.testing.assert_allclose(particles.positions(read), expected)
    assert read["label"].tolist() == ["ribosome", "virus"]
    assert read["class"].tolist() == [0, 2]
    assert read["score"].tolist() == [0.0, 4.5]
    assert read["eman2_method"].tolist() == ["manual", "tm"]
    assert read["tomogram"].tolist() == ["TS_01"] * 2
    # The same boxes seen in a tomogram of voxels half as large and twice as many lie at the same place.
    even = io.read_particles(
        tmp_path / "TS_01_info.json", tomogram_shape={"TS_01": (200, 400, 600)}, tilts=(-60, 60), voxel_size=4
    )
    np.testing.assert_allclose(particles.positions(even), expected)


def test_older_lists_count_voxels_from_the_corner(tmp_path: Path) -> None:
    read = io.read_particles(put(tmp_path, [[10, 20, 30], [1, 2, 3, "manual"]], name="a.json"), tomogram="TS_07", **KNOWN)
    np.testing.assert_allclose(particles.positions(read), [[240, 160, 80], [24, 16, 8]])
    assert read["label"].tolist() == ["ribosome"] * 2
    assert set(read["tomogram"]) == {"TS_07"}


def test_curves_are_left_out_and_named(tmp_path: Path) -> None:
    path = put(tmp_path, [[10, 20, 30]], curves=[[1, 2, 3, 0, 0], [4, 5, 6, 0, 0]])
    with pytest.warns(UserWarning, match="TS_01_info.json has 2 points of curves beside the boxes; they are left out"):
        assert len(io.read_particles(path, **KNOWN)) == 1


@pytest.mark.parametrize(
    ("boxes", "others", "known", "message"),
    [
        ([[1, 2, 3]], {"apix_unbin": 2.0}, {}, r"count from the middle of the tomogram; give tomogram_shape= \(z, y, x\)"),
        ([[1, 2, 3]], {"apix_unbin": 2.0}, {"tomogram_shape": {"a": SHAPE}}, "must be .z, y, x. of the tomogram 'TS_01'"),
        ([[1, 2, 3]], {"apix_unbin": "x"}, {"tomogram_shape": SHAPE}, "in apix_unbin"),
        ([[1, 2, 3]], {}, {"voxel_size": None}, "a list of EMAN2 needs voxel_size="),
        ([[1, 2]], {}, {}, r"box 0, counted from 0, must be x, y, z, method, score and class, got \[1, 2\]"),
        ([[1, 2, "far"]], {}, {}, "not numbers"),
        ([{"x": 1}], {}, {}, "must be x, y, z"),
        ({"a": 1}, {}, {}, "boxes_3d of EMAN2 must be a list, got a dict"),
        ([], {"class_list": [1]}, {}, "must be names of numbered classes"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, boxes: object, others: dict, known: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, boxes, **others), **{**KNOWN, **known})
