"""STAR files of other programs, with the traps that they hold."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomolab import io, particles

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnImagePixelSize #4
optics1 1 300.0 4.0
optics2 2 200.0 5.0

"""
PARTICLES = """
# version 30001

data_particles

loop_
_rlnTomoName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnCoordinateZ #4
_rlnOriginXAngst #5
_rlnOriginYAngst #6
_rlnOriginZAngst #7
_rlnAngleRot #8
_rlnAngleTilt #9
_rlnAnglePsi #10
_rlnOpticsGroup #11
_rlnClassNumber #12
_rlnGroupName #13
001 100 200 50.5 1 -2 4 137.7 1.1777 42.727 1 3 007

002 10 20 30 0 0 0 0 0 0 2 1 'two words'
"""


def write(folder: Path, text: str) -> Path:
    (folder / "a.star").write_text(text)
    return folder / "a.star"


def test_relion31(tmp_path) -> None:
    read = io.read_particles(write(tmp_path, OPTICS + PARTICLES), tilts={"001": (-60, 60), "002": (-50, 40)})
    np.testing.assert_allclose(particles.positions(read), [[50.5 * 4 - 4, 802, 399], [150, 100, 50]])
    assert read["tomogram"].tolist() == ["001", "002"]
    assert read["tilt_max"].tolist() == [60, 40]
    assert read["rlnClassNumber"].tolist() == [3, 1]
    assert read["rlnGroupName"].tolist() == ["007", "two words"]
    assert read["rlnVoltage"].tolist() == [300, 200]
    assert read["particle_id"].tolist() == [0, 1]
    assert not [name for name in read if name.startswith(("rlnOrigin", "rlnCoordinate", "rlnAngle"))]


def test_orientation_agrees_with_dynamo(tmp_path) -> None:
    """The same particle in Dynamo has tdrot, tilt, narot = -47.2730, 1.1777, -132.3000 (zxz, particle to reference)."""
    read = io.read_particles(write(tmp_path, OPTICS + PARTICLES), tilts=(-60, 60))
    dynamo = Rotation.from_euler("zxz", [-47.2730, 1.1777, -132.3000], degrees=True).inv().as_matrix()
    np.testing.assert_allclose(particles.matrices(read)[0][::-1, ::-1], dynamo, atol=2e-4)
    passive = Rotation.from_euler("ZYZ", [137.7, 1.1777, 42.727], degrees=True).as_matrix()
    np.testing.assert_allclose(particles.matrices(read)[0][::-1, ::-1], passive.T, atol=1e-9)


def test_relion5_and_a_rotated_subtomogram(tmp_path) -> None:
    text = """
data_general

_rlnTomoSubTomosAre2DStacks   1

data_optics

loop_
_rlnOpticsGroup
_rlnTomoTiltSeriesPixelSize
1 1.35

data_particles

loop_
_rlnTomoName
_rlnCenteredCoordinateXAngst
_rlnCenteredCoordinateYAngst
_rlnCenteredCoordinateZAngst
_rlnOriginXAngst
_rlnOriginYAngst
_rlnOriginZAngst
_rlnTomoSubtomogramRot
_rlnTomoSubtomogramTilt
_rlnTomoSubtomogramPsi
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOpticsGroup
_rlnTomoVisibleFrames
TS_01 -100 0 25.5 1 2 3 10 20 30 40 50 60 1 [1,1,0]
"""
    read = io.read_particles(write(tmp_path, text), voxel_size=10.0, tomogram_shape=(101, 200, 300), tilts=(-60, 60))
    first, second = (Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().T for angles in ([10, 20, 30], [40, 50, 60]))
    place = np.array([-100, 0, 25.5]) + np.array([1500, 1000, 505]) - first @ [1, 2, 3]
    np.testing.assert_allclose(particles.positions(read)[0][::-1], place, atol=1e-6)
    np.testing.assert_allclose(particles.matrices(read)[0][::-1, ::-1], first @ second, atol=1e-9)
    assert read["rlnTomoVisibleFrames"].tolist() == ["[1,1,0]"]
    for missing in ({"voxel_size": 10.0}, {"tomogram_shape": (1, 1, 1)}):
        with pytest.raises(ValueError, match="Å from the middle of the tomogram"):
            io.read_particles(tmp_path / "a.star", tilts=(-60, 60), **missing)


def test_one_table_of_relion30(tmp_path) -> None:
    text = """
data_

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnCoordinateZ #4
_rlnMagnification #5
_rlnDetectorPixelSize #6
_rlnOriginX #7
TS_01.tomostar 1 2 3 10000 5.0 0.5
"""
    read = io.read_particles(write(tmp_path, text), tilts=(-60, 60))
    np.testing.assert_allclose(particles.positions(read), [[15, 10, 2.5]])
    assert read["tomogram"].tolist() == ["TS_01.tomostar"]


def test_coordinates_may_be_in_other_pixels_than_the_images(tmp_path) -> None:
    read = io.read_particles(write(tmp_path, OPTICS + PARTICLES), tilts=(-60, 60), voxel_size=8.0)
    assert read["x"].tolist() == [799, 80]
    stated = OPTICS.replace("rlnImagePixelSize", "rlnTomoTiltSeriesPixelSize")
    with pytest.raises(ValueError, match="rlnTomoTiltSeriesPixelSize is 4, 5 Å, but voxel_size=8 was given"):
        io.read_particles(write(tmp_path, stated + PARTICLES), tilts=(-60, 60), voxel_size=8.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OPTICS + PARTICLES.replace("Coordinate", "Place"),
            r"no coordinates .*data_optics has .*data_particles has .*rlnPlaceX",
        ),
        ("hello\n", "no coordinates .*: it has no tables"),
        ("data_particles\n", "not a readable STAR file"),
        (
            OPTICS + PARTICLES.replace("002 10", "002 ten"),
            "1 of 6 values in .* are not numbers, first rlnCoordinateX of row 1: 'ten'",
        ),
        (OPTICS + PARTICLES.replace("0 0 0 2 1", "0 0 0 7 1"), "particles name the optics groups 7; there are 1, 2"),
        (OPTICS + PARTICLES.replace("_rlnTomoName", "_rlnOther"), "neither rlnTomoName nor rlnMicrographName; give tomogram="),
        (
            OPTICS.replace("ImagePixelSize", "Other") + PARTICLES,
            "does not say the pixel size of its coordinates; give voxel_size=",
        ),
        (
            OPTICS + PARTICLES.replace("_rlnOpticsGroup ", "_rlnOther "),
            "there are 2 optics groups, but rlnOpticsGroup does not tie",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(write(tmp_path, text), tilts=(-60, 60))


def test_tilts_must_be_known(tmp_path) -> None:
    path = write(tmp_path, OPTICS + PARTICLES)
    with pytest.raises(ValueError, match=r"between which tilts .* give tilts="):
        io.read_particles(path)
    with pytest.raises(ValueError, match="tilts= lacks 002; it has 001"):
        io.read_particles(path, tilts={"001": (-60, 60)})
    with pytest.raises(FileNotFoundError, match="no file"):
        io.read_particles(tmp_path / "none.star")
