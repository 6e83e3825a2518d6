import numpy as np
import pytest

from tomolab import particles
from tomolab.tomograms import statistics
from tomolab.volumes import Volume

RNG = np.random.default_rng(0)
NOISE = Volume(RNG.normal(0, 2, (48, 64, 64)), 10.0)


def test_white_noise_has_flat_power_of_its_variance() -> None:
    for region in (None, np.indices(NOISE.shape)[2] < 40):
        table = statistics.power(NOISE, region)
        assert table["power"][4:30].mean() == pytest.approx(4, rel=0.05)
        assert table["power"][4:16].mean() == pytest.approx(table["power"][16:30].mean(), rel=0.1)
    assert table["resolution"][32] == pytest.approx(20)


def test_a_wave_stands_at_its_resolution() -> None:
    wave = np.sin(2 * np.pi * np.arange(64) / 8) * np.ones((48, 64, 64))
    table = statistics.power(Volume(wave, 10.0))
    assert table["resolution"][table["power"].idxmax()] == pytest.approx(80)


def test_the_border_of_a_region_adds_nothing() -> None:
    step = np.where(np.indices(NOISE.shape)[2] < 40, 5.0, -5.0)
    table = statistics.power(Volume(NOISE.data + step, 10.0), np.indices(NOISE.shape)[2] < 40)
    assert table["power"][3:30].mean() == pytest.approx(4, rel=0.1)


def test_ratio_forgets_one_scale_and_keeps_the_rest() -> None:
    first = statistics.power(NOISE)
    scaled = first.assign(power=7 * first["power"])
    assert np.allclose(statistics.ratio(first, scaled, between=(200, 25))["ratio"], 1)
    tilted = first.assign(power=first["power"] * (1 + 20 * first["frequency"]))
    found = statistics.ratio(first, tilted, between=(200, 25))
    assert found["ratio"].is_monotonic_increasing
    assert np.log(found["ratio"]).mean() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="finer than the shells"):
        statistics.ratio(first, tilted, between=(30, 29))


def test_histograms_and_moments_are_relative_to_the_last_region() -> None:
    left = np.indices(NOISE.shape)[2] < 32
    volume = Volume(np.where(left, 2 * NOISE.data + 3, NOISE.data + 1), 10.0)
    regions = {"left": left, "right": ~left}
    table = statistics.histograms(volume, regions)
    width = table["value"][1] - table["value"][0]
    assert (table["right"] * width).sum() == pytest.approx(1, abs=1e-3)
    found = statistics.moments(volume, regions)
    assert found.loc["left", "mean"] == pytest.approx(1, abs=0.05)
    assert found.loc["left", "deviation"] == pytest.approx(2, abs=0.05)
    assert found.loc["right"].tolist() == pytest.approx([0, 1, 0], abs=0.05)


def test_profile_shows_what_is_around_particles() -> None:
    data = np.zeros((40, 60, 60), dtype=np.float32)
    places = [(20, 20, 20), (18, 40, 35)]
    grid = np.indices(data.shape)
    for place in places:
        data[((grid - np.reshape(place, (3, 1, 1, 1))) ** 2).sum(0) <= 25] = 1
    table = particles.table([*(np.array(places) * 10.0), (10.0, 300.0, 300.0)], tomogram="one", tilts=(-60, 60))
    radii, values = statistics.profile(Volume(data, 10.0), table, radius=120.0)
    assert radii.tolist() == [10.0 * i for i in range(13)]
    outside = -data.mean() / data.std()
    assert values[:4] == pytest.approx((1 - data.mean()) / data.std(), rel=1e-3)
    assert values[7:] == pytest.approx(outside, abs=1e-4)
    with pytest.raises(ValueError, match="none of 1 particles is 250 Å from the faces"):
        statistics.profile(Volume(data, 10.0), table[2:], radius=250.0)


def test_a_region_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs the shape \(48, 64, 64\)"):
        statistics.power(NOISE, np.ones((4, 4, 4), dtype=bool))
    with pytest.raises(ValueError, match=r"some voxels, got .* with 0"):
        statistics.power(NOISE, np.zeros(NOISE.shape, dtype=bool))
