"""IMOD's flipped tomograms are recognised, asked about, and turned in the way that was said."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tomolab import io
from tomolab.io.volumes import flips
from tomolab.volumes import Volume

TILT = "TILT: Tomographic reconstruction                        30-Nov-15  12:29:39"


def write(path: Path, data: np.ndarray, *labels: str) -> Path:
    with mrcfile.new(path, data.astype(np.float32), overwrite=True) as file:
        file.set_volume()
        file.voxel_size = 10.0
        for i, label in enumerate(labels):
            file.header.label[i] = label.encode()
        file.header.nlabl = len(labels)
    return path


@pytest.fixture
def helix() -> np.ndarray:
    """Beads of growing weight on a right-handed helix about z: at angle a they lie at z = 3 a, x = cos a, y = sin a."""
    data = np.zeros((24, 60, 64), dtype=np.float32)
    for step in range(6):
        angle = step * np.pi / 3
        data[4 + 3 * step, 30 + round(20 * np.sin(angle)), 32 + round(20 * np.cos(angle))] = 1 + step
    return data


def hand(data: np.ndarray) -> float:
    """Sign of the volume that three steps from bead to bead span, in xyz: above 0 for a right-handed helix."""
    beads = np.array([np.argwhere(data == weight)[0][::-1] for weight in range(1, 7)], dtype=float)
    return float(np.linalg.det(np.diff(beads, axis=0)[[0, 1, 2]]))


def test_the_ways_out_are_those_of_imod_and_one_of_them_mirrors(tmp_path, helix: np.ndarray) -> None:
    assert hand(helix) > 0
    # As tilt writes it: of what trimvol -rx gives, the section is y, and the row runs against z.
    path = write(tmp_path / "a.rec", helix[::-1].transpose(1, 0, 2), TILT)
    turned = io.read_volume(path, flipped="rotate").data
    np.testing.assert_array_equal(turned, helix)
    swapped = io.read_volume(path, flipped="swap").data
    np.testing.assert_array_equal(swapped, helix[::-1])
    assert hand(turned) > 0 > hand(swapped)
    assert hand(io.read_volume(path, flipped=False).data) > 0
    for way in flips.WAYS:
        opened = io.open_volume(path, flipped=way)
        np.testing.assert_array_equal(opened.load().data, io.read_volume(path, flipped=way).data)
        part = np.s_[3:9, 5:50, 20:60] if way else np.s_[5:50, 3:9, 20:60]
        np.testing.assert_array_equal(opened.read(part), opened.load().data[part])


@pytest.mark.parametrize(
    ("shape", "labels", "asked"),
    [
        ((60, 24, 64), (TILT,), True),
        ((60, 24, 64), (), True),
        ((60, 24, 64), ("NEWSTACK: Images copied", TILT, "clip: flipyz  30-Nov-15"), True),
        ((24, 60, 64), (TILT, "clip: flipyz  30-Nov-15"), False),
        ((24, 60, 64), (TILT, "clip: rotx - rotation by -90 around X"), False),
        ((24, 60, 64), (TILT,), False),
        ((50, 60, 64), (TILT,), True),
        ((50, 60, 64), ("clip: rotx - rotation by -90 around X", TILT), True),
        ((50, 60, 64), (TILT, "clip: rotx - rotation by -90 around X"), False),
        ((50, 60, 64), (), False),
        ((60, 24, 24), (), False),
        ((60, 24, 64), (TILT, "tomolab 0.1.0"), False),
    ],
)
def test_what_is_asked_about(tmp_path, shape: tuple, labels: tuple, asked: bool) -> None:
    data = np.random.default_rng(0).normal(size=shape)
    path = write(tmp_path / "a.mrc", data, *labels)
    if asked:
        for read in (io.read_volume, io.open_volume):
            with pytest.raises(ValueError, match=r"seems to have its thickness along y .* flipped=False .*'rotate' .*'swap'"):
                read(path)
    else:
        assert io.open_volume(path).shape == io.read_volume(path).shape == shape
    assert io.read_volume(path, flipped=False).shape == shape


def test_our_own_files_are_never_asked_about(tmp_path) -> None:
    volume = Volume(np.random.default_rng(0).normal(size=(60, 10, 64)), 10.0)
    assert io.read_volume(io.write_volume(volume, tmp_path / "a.mrc")).shape == (60, 10, 64)


@pytest.mark.parametrize("word", [True, "yes", 0, "", 1.0])
def test_a_word_that_says_nothing_is_refused(tmp_path, word: object) -> None:
    path = write(tmp_path / "a.mrc", np.zeros((4, 5, 6)))
    with pytest.raises(ValueError, match="flipped must be False, 'swap' or 'rotate'"):
        io.read_volume(path, flipped=word)
