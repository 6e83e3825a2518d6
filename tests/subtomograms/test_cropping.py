"""Boxes at any voxel size show what the whole tomogram, resampled, would show there; edges, contrast and means are as asked."""

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import fourier, io, particles, subtomograms, volumes
from tomolab.io.volumes import tomogram as tomogram_files
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.subtomograms import cropping
from tomolab.volumes import Volume


def scene(phantom: Volume, places: np.ndarray, *, shape: tuple[int, int, int] = (64, 70, 80)) -> Volume:
    """A tomogram of 10 Å with the phantom at `places` (zyx, voxels), moved there by an exact Fourier shift."""
    padded = torch.zeros(shape)
    padded[:32, :32, :32] = torch.from_numpy(phantom.data)
    transform = torch.fft.rfftn(padded)
    phases = fourier.shift_phases(shape, torch.tensor(places - 16, dtype=torch.float32))
    return Volume(torch.fft.irfftn(transform * phases.sum(0), s=shape).numpy(), 10.0)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(np.asarray(first, float).ravel(), np.asarray(second, float).ravel())[0, 1])


def series(data: np.ndarray, at: list[np.ndarray], cut: float) -> np.ndarray:
    """The Fourier series of the whole array below `cut` cycles per voxel, at the points of three axes (voxels)."""
    out = data.astype(float)
    for axis, points in enumerate(at):
        n = data.shape[axis]
        frequencies = np.fft.fftfreq(n)
        weight = np.where(np.abs(frequencies) < cut - 1e-9, 1.0, np.where(np.abs(np.abs(frequencies) - cut) < 1e-9, 0.5, 0.0))
        kernel = np.cos(2 * np.pi * (points[:, None] - np.arange(n))[..., None] * frequencies) @ weight / n
        out = np.moveaxis(np.tensordot(kernel, out, (1, axis)), 0, axis)
    return out


@pytest.mark.parametrize("size", [5.0, 7.3, 13.0, 20.0, 26.6])
def test_a_box_is_the_resampled_tomogram_about_the_particle(phantom: Volume, size: float) -> None:
    places = np.array([[30.3, 33.6, 24.5], [31.0, 30.25, 55.0]])
    tomogram = scene(phantom, places)
    box = int(220 / size)
    cut = subtomograms.extract(tomogram, particles.table(places * 10), box=box, voxel_size=size)
    assert cut.voxel_size == size
    steps = (np.arange(box) - box // 2) * size / 10
    for place, volume in zip(places, cut.volumes, strict=True):
        expected = series(tomogram.data, [p + steps for p in place], 0.5 * min(1, 10 / size))
        assert likeness(volume, expected) > 0.9995
        moved = series(tomogram.data, [p + 0.25 + steps for p in place], 0.5 * min(1, 10 / size))
        assert likeness(volume, moved) < 0.998
        assert likeness(volume, volume[::-1]) < 0.9


def test_it_is_also_what_resampling_all_gives(phantom: Volume) -> None:
    # 40 Å is a whole number of voxels at both sizes, so that nothing is left to interpolation.
    places = np.array([[32.0, 36.0, 24.0], [28.0, 32.0, 56.0]])
    tomogram = scene(phantom, places)
    for size in (20.0, 40.0):
        cut = subtomograms.extract(tomogram, particles.table(places * 10), box=6, voxel_size=size)
        whole = volumes.resample(tomogram, size).data
        for place, volume in zip((places * 10 / size).astype(int), cut.volumes, strict=True):
            z, y, x = (slice(p - 3, p + 3) for p in place)
            assert likeness(volume, whole[z, y, x]) > 0.995
            assert likeness(volume, whole[z, y, x.start + 1 : x.stop + 1]) < 0.98


def test_noise_is_resampled_without_much_of_its_surroundings() -> None:
    noise = Volume(np.random.default_rng(0).standard_normal((80, 80, 80)), 10.0)
    places = np.array([[400.0, 391.0, 407.0]])
    for size in (6.0, 15.0, 25.0):
        cut = subtomograms.extract(noise, particles.table(places), box=10, voxel_size=size)
        steps = (np.arange(10) - 5) * size / 10
        expected = series(noise.data, [p / 10 + steps for p in places[0]], 0.5 * min(1, 10 / size))
        assert likeness(cut.volumes[0], expected) > 0.95


def test_positions_far_from_the_corner_are_as_exact_as_near_ones(phantom: Volume) -> None:
    place = np.array([[30.0, 30.0, 370.0]])
    tomogram = scene(phantom, place, shape=(64, 64, 400))
    for size in (10.008, 10.5):
        cut = subtomograms.extract(tomogram, particles.table(place * 10), box=20, voxel_size=size)
        expected = series(phantom.data, [16 + (np.arange(20) - 10) * size / 10] * 3, 0.5)
        assert likeness(cut.volumes[0], expected) > 0.999


def test_a_tomogram_on_disk_gives_the_same_boxes(tmp_path) -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.standard_normal((40, 90, 80)), 10.0)
    table = particles.table(rng.uniform(-20, [420, 920, 820], (80, 3)), label=[f"class {i}" for i in range(80)])
    for path in (
        io.write_volume(volume, tmp_path / "a.mrc"),
        io.write_volume(volume, tmp_path / "a.mrc.gz"),
        io.write_volume(volume, tmp_path / "a.zarr"),
    ):
        for size, box, edges in ((10.0, 12, "skip"), (20.0, 8, "flag")):
            with pytest.warns(UserWarning, match="particles skipped"):
                held = subtomograms.extract(volume, table, box=box, voxel_size=size, edges=edges)
            with pytest.warns(UserWarning, match="particles skipped"):
                lazy = subtomograms.extract(io.open_volume(path), table, box=box, voxel_size=size, edges=edges)
            assert np.array_equal(held.volumes, lazy.volumes)
            pd.testing.assert_frame_equal(held.particles, lazy.particles)
            assert len(lazy) + len(lazy.skipped) == 80


def test_only_blocks_are_read_and_those_of_a_chunk_together(monkeypatch) -> None:
    monkeypatch.setattr(cropping, "BATCH", 1)
    volume = Volume(np.random.default_rng(0).standard_normal((40, 40, 200)), 10.0)
    asked = []

    def fetch(slices: tuple[slice, slice, slice]) -> np.ndarray:
        asked.append(slices[2].start)
        assert all(one.stop - one.start <= 16 for one in slices)
        return volume.data[slices]

    table = particles.table([[200, 200, x] for x in (1500, 300, 1600, 200, 1550, 250)])
    lazy = Tomogram(volume.shape, 10.0, fetch, chunks=(40, 40, 100))
    cut = subtomograms.extract(lazy, table, box=8)
    assert [start >= 100 for start in asked] in ([False] * 3 + [True] * 3, [True] * 3 + [False] * 3)
    assert np.array_equal(cut.volumes, subtomograms.extract(volume, table, box=8).volumes)
    assert cut.ids.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_level_whose_voxels_lie_elsewhere_gives_the_particle_on_the_centre(phantom: Volume) -> None:
    places = np.array([[30.3, 33.6, 24.5], [31.0, 30.0, 55.0]])
    fine = scene(phantom, places)
    z, y, x = (n // 2 for n in fine.shape)
    blocks = fine.data.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))
    level = Tomogram(blocks.shape, 20.0, blocks.__getitem__, origin=(5.0, 5.0, 5.0))
    steps = (np.arange(10) - 5) * 2.0
    for tomogram in (level, tomogram_files.of(level.load())):
        cut = subtomograms.extract(tomogram, particles.table(places * 10), box=10)
        for place, volume in zip(places, cut.volumes, strict=True):
            right, wrong = (series(fine.data, [p + off + steps for p in place], 0.25) for off in (0, -0.5))
            assert likeness(volume, right) > 0.99 > 0.98 > likeness(volume, wrong)


def test_dark_density_is_turned_and_that_is_recorded() -> None:
    volume = Volume(np.random.default_rng(0).standard_normal((20, 20, 20)), 10.0)
    table = particles.table([[100, 100, 100]])
    bright, dark = (subtomograms.extract(volume, table, box=8, contrast=word) for word in ("bright", "dark"))
    assert np.array_equal(bright.volumes, -dark.volumes)
    assert dark.particles["contrast"].tolist() == ["dark"]
    assert "contrast" not in bright.particles


def test_the_mean_may_be_that_outside_a_sphere(phantom: Volume) -> None:
    noise = np.random.default_rng(0).standard_normal((32, 32, 32))
    volume = Volume(5 + 2 * noise + 40 * phantom.data * (volumes.distance(32).numpy() <= 9), 10.0)
    table = particles.table([[160, 160, 160]])
    for size, box in ((10.0, 24), (20.0, 12)):
        cut = subtomograms.extract(volume, table, box=box, voxel_size=size, normalise="outside", diameter=200.0)
        outside = cut.volumes[0][(volumes.distance(box) * size > 100).numpy()].astype(float)
        np.testing.assert_allclose((outside.mean(), outside.std()), (0, 1), atol=2e-3)
        assert cut.volumes[0].astype(float).mean() > 0.2
    level = Volume(np.where(volumes.distance(32).numpy() <= 9, volume.data, 0), 10.0)
    with pytest.raises(ValueError, match="all values outside the sphere are equal"):
        subtomograms.extract(level, table, box=24, normalise="outside", diameter=200.0)


@pytest.mark.parametrize("size", [10.0, 20.0])
def test_particles_at_the_edge_are_kept_with_their_share(size: float) -> None:
    volume = Volume(7 + np.random.default_rng(0).standard_normal((24, 32, 40)), 10.0)
    box = int(80 / size)
    table = particles.table(np.array([[12, 16, 20], [0, 16, 20], [12, 31, 39], [12, 32, 20], [-3, 16, 20]]) * 10.0)
    with pytest.warns(UserWarning, match=r"2 of 5 particles skipped: its centre lies outside the tomogram \(2\)"):
        cut = subtomograms.extract(volume, table, box=box, voxel_size=size, edges="flag")
    share = {10.0: [1, 4 / 8, 5 * 5 / 64], 20.0: [1, 2 / 4, 9 / 16]}[size]
    np.testing.assert_allclose(cut.particles["edge"], share)
    first = cut.volumes[1].astype(float)
    assert not first[: box // 2].any()
    np.testing.assert_allclose((first[box // 2 :].mean(), first[box // 2 :].std()), (0, 1), atol=2e-3)
    whole = subtomograms.extract(volume, table[:1], box=box, voxel_size=size)
    np.testing.assert_allclose(cut.volumes[0].astype(float), whole.volumes[0].astype(float), atol=2e-3)


def test_every_particle_keeps_its_own_tilts_and_columns() -> None:
    volume = Volume(np.random.default_rng(0).standard_normal((20, 20, 40)), 10.0)
    table = particles.table([[100, 100, 100], [100, 100, 300]], tilts=[(-50, 60), (-66, 44)], rank=["a", "b"])
    cut = subtomograms.extract(volume, table, box=8, voxel_size=15.0)
    pd.testing.assert_frame_equal(cut.particles, table)


def test_words_that_mean_nothing_are_refused() -> None:
    volume, table = Volume(np.random.default_rng(0).standard_normal((20, 20, 20)), 10.0), particles.table([[100, 100, 100]])
    for options, message in (
        ({"contrast": "black"}, "contrast must be 'bright' or 'dark'"),
        ({"edges": "keep"}, "edges must be 'skip' or 'flag'"),
        ({"normalise": "none"}, "normalise must be 'box' or 'outside'"),
        ({"normalise": "outside"}, "go together"),
        ({"diameter": 50.0}, "go together"),
        ({"normalise": "outside", "diameter": 90.0}, "leaves nothing outside of it in a box of 80 Å"),
        ({"voxel_size": -1.0}, "positive number of Å"),
    ):
        with pytest.raises(ValueError, match=message):
            subtomograms.extract(volume, table, box=8, **options)
