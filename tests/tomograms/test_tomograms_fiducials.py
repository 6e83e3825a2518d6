"""Gold is found in the images of a tilt series and filled with its surroundings, and what is not gold stays as it is."""

import numpy as np
import pytest

from tomolab import tomograms
from tomolab.io.tilts import imod
from tomolab.tomograms import TiltSeries, fiducials, projection, tilt_series
from tomolab.volumes import Volume

PLACES = [(20, 30), (61, 77), (40, 100)]


def discs(shape, places, radius):
    y, x = np.indices(shape)
    return np.any([(y - a) ** 2 + (x - b) ** 2 <= radius**2 for a, b in places], axis=0)


@pytest.fixture
def images():
    rng = np.random.default_rng(3)
    slope = np.linspace(20, 30, 128)[None, :]
    out = (slope + rng.normal(0, 4, (2, 96, 128))).astype(np.float32)
    out[0][discs((96, 128), PLACES, 5)] -= 25
    return out


def test_beads_are_found_and_nothing_else(images) -> None:
    mask = fiducials.find(images, diameter=10.0)
    beads = discs((96, 128), PLACES, 5)
    assert mask[0][beads].mean() > 0.98
    assert not mask[0][~discs((96, 128), PLACES, 11)].any()
    assert not mask[1].any()


def test_gold_is_filled_with_what_is_around_it(images) -> None:
    mask = fiducials.find(images, diameter=10.0)
    series = TiltSeries(images, imod.table([0.0, 10.0]), 10.0)
    filled = fiducials.erase(series, diameter=100.0, progress=False)
    out = filled.images
    np.testing.assert_allclose(filled.table["gold"], mask.mean((1, 2)))
    assert np.array_equal(out[~mask], images[~mask])
    for y, x in PLACES:
        here = out[0, y - 4 : y + 5, x - 4 : x + 5]
        assert here.mean() == pytest.approx(20 + 10 * x / 127, abs=1.5)
        assert here.std() == pytest.approx(4, rel=0.35)
    assert np.array_equal(out, fiducials.erase(series, diameter=100.0, progress=False).images)


def test_bad_input_is_refused(images) -> None:
    with pytest.raises(ValueError, match=r"images of shape \(n, y, x\)"):
        fiducials.find(images[0], diameter=10)
    for wrong in (1.0, 50.0, np.nan):
        with pytest.raises(ValueError, match="2 pixels to a quarter"):
            fiducials.find(images, diameter=wrong)
    with pytest.raises(ValueError, match="deviations must be positive"):
        fiducials.find(images, diameter=10, deviations=0)


def test_streaks_of_gold_leave_the_tomogram_and_a_weak_particle_stays() -> None:
    specimen = np.zeros((24, 64, 64), dtype=np.float32)
    specimen[9:15, 40:46, 44:50] = 1.0
    angles = np.arange(-60.0, 61, 6)
    clean = projection.project(Volume(specimen, 10.0), angles, progress=False)
    specimen[9:15, 18:24, 14:20] = 25.0
    beads = projection.project(Volume(specimen, 10.0), angles, progress=False)
    noise = np.random.default_rng(1).normal(0, 2.0, clean.shape)
    series = TiltSeries(noise - beads, imod.table(angles), 10.0)
    done = fiducials.erase(series, diameter=80.0, progress=False)
    assert (done.table["gold"] > 0.01).all()

    def made(images):
        return tomograms.reconstruct(images, angles, voxel_size=10.0, shape=(24, 64, 64), clip=None, progress=False).data

    without, painted, golden = made(noise - clean), made(done.images), made(series.images)
    particle = (slice(9, 15), slice(40, 46), slice(44, 50))
    assert painted[particle].mean() == pytest.approx(without[particle].mean(), rel=0.25)
    streak = (slice(None), slice(16, 26), slice(0, 34))
    assert np.abs(painted[streak]).max() < 1.3 * np.abs(without[streak]).max()
    assert golden[streak].max() > 3 * np.abs(without[streak]).max()


def test_tilts_of_the_other_sign_are_recorded(tmp_path) -> None:
    import mrcfile

    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.ones((3, 6, 8), dtype=np.float32) * np.arange(8, dtype=np.float32))
        file.voxel_size = 4.0
    (tmp_path / "a.tlt").write_text("-3\n0\n6\n")
    series = tilt_series.read(tmp_path / "a.mrc", tilts=tmp_path / "a.tlt", invert_tilts=True)
    assert series.tilts.tolist() == [3, 0, -6]
    assert series.table["tilts_inverted"].all()
    assert "tilts_inverted" not in tilt_series.read(tmp_path / "a.mrc", tilts=tmp_path / "a.tlt").table
