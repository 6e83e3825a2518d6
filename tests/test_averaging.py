"""Averaging: known poses give the phantom back; from random orientations its structure, hand and poses are found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import alignment, averages, averaging, fourier, particles, rotations, volumes
from tomolab.averaging import Average, Progress
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL = 20, 20.0


@pytest.fixture(scope="module")
def small(phantom: Volume) -> Volume:
    """The phantom at 20 Å in a box of 20."""
    return volumes.fit(volumes.resample(phantom, VOXEL), BOX)


def imaged(truth: Volume, count: int, *, snr: float, seed: int) -> tuple[Subtomograms, np.ndarray, np.ndarray]:
    """Copies in random poses with a missing wedge and noise inside it; the rotations and the shifts in Å."""
    generator = torch.Generator().manual_seed(seed)
    turns = rotations.random(count, generator)
    shifts = 2 * torch.rand(count, 3, generator=generator) - 1
    fine = fourier.resize(torch.from_numpy(truth.data), [2 * n for n in truth.shape])
    clean = volumes.transform(fine.expand(count, -1, -1, -1), turns, shifts, box=truth.shape[0], step=2.0)
    tilts = torch.tensor([[-60.0, 60.0], [-50.0, 60.0]])[torch.arange(count) % 2]
    wedge = fourier.wedge(truth.shape[0], tilts[:, 0], tilts[:, 1])

    def seen(batch: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(batch, dim=(1, 2, 3)) * wedge, s=truth.shape, dim=(1, 2, 3))

    signal, noise = seen(clean), seen(torch.randn(clean.shape, generator=generator))
    scale = (signal.flatten(1).var(1) / noise.flatten(1).var(1) / snr).sqrt()
    data = volumes.normalise(signal + scale[:, None, None, None] * noise)
    middle = np.full((count, 3), truth.shape[0] // 2 * truth.voxel_size)
    table = particles.table(middle, ids=np.arange(count) + 100, tilts=tilts.numpy(), source="phantom")
    return (
        Subtomograms(data.numpy(), table, truth.voxel_size),
        turns.double().numpy(),
        shifts.double().numpy() * truth.voxel_size,
    )


@pytest.fixture(scope="module")
def data(small: Volume) -> tuple[Subtomograms, np.ndarray, np.ndarray]:
    return imaged(small, 80, snr=0.3, seed=0)


@pytest.fixture(scope="module")
def seen() -> list[Progress]:
    """Filled while `result` is made."""
    return []


@pytest.fixture(scope="module")
def result(data: tuple[Subtomograms, np.ndarray, np.ndarray], seen: list[Progress]) -> Average:
    return averaging.average(data[0], seed=1, progress=seen.append, device="cpu")


def test_known_poses_give_the_phantom_back(phantom: Volume) -> None:
    clean, turns, shifts = imaged(phantom, 40, snr=1e6, seed=2)
    volume, sampling = averaging.with_poses(clean, turns, shifts, device="cpu")
    fsc = averaging.correlate(volume, phantom, diameter=28)["fsc"].to_numpy()
    assert fsc[:8].min() > 0.98  # up to half Nyquist
    assert alignment.correlation(volume, phantom, radius=8) > 0.98
    assert 0.5 * 40 < sampling[2, 2, 2] < 40
    assert volume.voxel_size == phantom.voxel_size


def test_the_wedge_follows_the_tilt_axis_of_the_table(phantom: Volume) -> None:
    generator = torch.Generator().manual_seed(4)
    turns = rotations.random(20, generator)
    clean = volumes.transform(torch.from_numpy(phantom.data).expand(20, -1, -1, -1), turns)
    axes = torch.linspace(-90, 60, 20)
    wedge = fourier.wedge(32, -40, 40, axis=axes)
    seen = torch.fft.irfftn(torch.fft.rfftn(clean, dim=(1, 2, 3)) * wedge, s=(32,) * 3, dim=(1, 2, 3))
    table = particles.table(np.full((20, 3), 160.0), tilts=(-40, 40), tilt_axis=axes.numpy())
    right, wrong = (
        averaging.with_poses(Subtomograms(seen.numpy(), rows, 10.0), turns.double().numpy(), np.zeros((20, 3)), device="cpu")[0]
        for rows in (table, table.drop(columns="tilt_axis"))
    )
    scores = [averaging.correlate(volume, phantom, diameter=28)["fsc"].to_numpy()[:8].mean() for volume in (right, wrong)]
    assert scores[0] > 0.995
    assert 1 - scores[1] > 5 * (1 - scores[0])


def test_poses_of_the_wrong_sense_do_not(small: Volume) -> None:
    clean, turns, shifts = imaged(small, 30, snr=1e6, seed=3)
    scores = [
        alignment.correlation(averaging.with_poses(clean, *poses, device="cpu")[0], small, radius=8)
        for poses in ((turns, shifts), (turns.transpose(0, 2, 1), shifts), (turns, -shifts))
    ]
    assert scores[0] > 0.95
    assert max(scores[1:]) < scores[0] - 0.03


def test_average_without_reference_has_structure_and_hand(result: Average, small: Volume) -> None:
    fit = alignment.align_map(small, result.volume, radius=6)
    mirror = Volume(np.roll(small.data[:, :, ::-1], 1, axis=2).copy(), VOXEL)
    assert fit.score > 0.9
    assert fit.score > alignment.align_map(mirror, result.volume, radius=6).score + 0.01


def test_poses_are_found(result: Average, data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    _, turns, shifts = data
    found = torch.from_numpy(particles.matrices(result.particles))
    # The frame of the average is free: one rotation from truth to result for all particles.
    apart = torch.from_numpy(turns).transpose(1, 2) @ found
    between = torch.stack([rotations.angle_between(apart, one.expand_as(apart)).median() for one in apart])
    off = rotations.angle_between(apart, apart[between.argmin()].expand_as(apart))
    assert float(off.median()) < 15
    assert np.linalg.norm(particles.positions(result.particles) - BOX // 2 * VOXEL - shifts, axis=1).mean() < 1.5 * VOXEL


def test_halves_and_fsc_agree_with_each_other(result: Average) -> None:
    assert result.fsc["resolution"].iloc[[0, -1]].tolist() == [BOX * VOXEL, 2 * VOXEL]
    assert result.fsc["fsc"].iloc[:3].min() > 0.8
    assert 2 * VOXEL <= result.resolution < 110
    assert result.particles["half"].value_counts().to_dict() == {1: 40, 2: 40}
    assert alignment.correlation(result.half1, result.half2, radius=4) > 0.8


def test_table_keeps_ids_and_columns(result: Average, data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    assert result.particles["particle_id"].tolist() == data[0].ids.tolist()
    assert (result.particles["source"] == "phantom").all()
    assert np.isfinite(result.particles["score"]).all()


def test_progress_tells_how_far(result: Average, seen: list[Progress]) -> None:
    assert [step.iteration for step in seen] == list(range(1, seen[0].of + 1))
    assert {step.stage for step in seen} == {"search", "refine"}
    assert 200 < seen[-1].volume.extent[0] <= BOX * VOXEL
    assert seen[-1].resolution < seen[0].resolution


def test_same_seed_same_average(data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    ids = data[0].ids[:16]
    one, same, other = (averaging.average(data[0], ids, seed=seed, iterations=3, device="cpu") for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.volume.data, same.volume.data)
    pd.testing.assert_frame_equal(one.particles, same.particles)
    assert not np.allclose(one.volume.data, other.volume.data)
    assert one.particles["particle_id"].tolist() == ids.tolist()


def test_stop_returns_what_there_is(data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    steps: list[Progress] = []
    result = averaging.average(data[0], seed=1, progress=steps.append, stop=lambda: len(steps) == 2, device="cpu")
    assert len(steps) == 2
    assert len(result.particles) == 80


def test_pure_noise_has_no_resolution(small: Volume) -> None:
    noise, _, _ = imaged(small, 40, snr=1e-6, seed=4)
    result = averaging.average(noise, seed=0, iterations=12, device="cpu")
    # The halves are turned onto each other, which makes the first shells of any two maps alike.
    assert result.resolution > 80
    assert result.fsc["fsc"].iloc[5:].mean() < 0.143


def test_an_average_is_saved_and_loaded(result: Average, tmp_path: Path) -> None:
    again = averaging.load(result.save(tmp_path / "average"))
    np.testing.assert_array_equal(again.half2.data, result.half2.data)
    pd.testing.assert_frame_equal(again.particles, result.particles)
    assert again.resolution == pytest.approx(result.resolution)
    assert again.record == result.record
    assert again.record["seed"] == 1
    (tmp_path / "average" / "half1.mrc").unlink()
    with pytest.raises(FileNotFoundError, match=r"no half1\.mrc"):
        averaging.load(tmp_path / "average")


def test_crossing_is_interpolated_in_frequency() -> None:
    fsc = pd.DataFrame({"resolution": [400.0, 200.0, 400 / 3], "fsc": [0.9, 0.243, 0.043]})
    assert averages.crossing(fsc, 0.143) == pytest.approx(400 / 2.5)
    assert averages.crossing(fsc, 0.01) == pytest.approx(400 / 3)
    assert averages.crossing(fsc, 0.95) == pytest.approx(400)


def test_bad_input_is_refused(data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    subtomograms, turns, shifts = data
    with pytest.raises(ValueError, match="1 of 2 particle ids"):
        averaging.average(subtomograms, [100, 7], seed=0)
    with pytest.raises(ValueError, match="at least 4 particles, got 3"):
        averaging.average(subtomograms, [100, 101, 102], seed=0)
    with pytest.raises(ValueError, match="mask_diameter must be over 0"):
        averaging.average(subtomograms, seed=0, mask_diameter=4000.0)
    with pytest.raises(ValueError, match="at least 2 iterations"):
        averaging.average(subtomograms, seed=0, iterations=1)
    with pytest.raises(ValueError, match="80 subtomograms need rotations"):
        averaging.with_poses(subtomograms, turns[:3], shifts)
    with pytest.raises(ValueError, match="proper rotations"):
        averaging.with_poses(subtomograms, -turns, shifts)
