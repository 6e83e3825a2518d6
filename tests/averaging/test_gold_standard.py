"""Averaging: known poses give the phantom back; from random orientations its structure, hand and poses are found."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import imaged

from tomolab import averaging, fourier, particles, rotations, subtomograms, volumes
from tomolab.averaging import Average, alignment, checkpoint, coefficients, pose_search, symmetry
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.io import paths
from tomolab.jobs import Progress
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL = 20, 20.0


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
    fsc = averaging.correlate(volume, phantom, diameter_voxels=28)["fsc"].to_numpy()
    assert fsc[:8].min() > 0.98  # up to half Nyquist
    assert alignment.correlation(volume, phantom, radius_cycles=8) > 0.98
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
    scores = [
        averaging.correlate(volume, phantom, diameter_voxels=28)["fsc"].to_numpy()[:8].mean() for volume in (right, wrong)
    ]
    assert scores[0] > 0.995
    assert 1 - scores[1] > 5 * (1 - scores[0])


def test_poses_of_the_wrong_sense_do_not(small: Volume) -> None:
    clean, turns, shifts = imaged(small, 30, snr=1e6, seed=3)
    scores = [
        alignment.correlation(averaging.with_poses(clean, *poses, device="cpu")[0], small, radius_cycles=8)
        for poses in ((turns, shifts), (turns.transpose(0, 2, 1), shifts), (turns, -shifts))
    ]
    assert scores[0] > 0.95
    assert max(scores[1:]) < scores[0] - 0.03


def test_average_without_reference_has_structure_and_hand(result: Average, small: Volume) -> None:
    fit = alignment.align_map(small, result.volume, radius_cycles=6)
    mirror = Volume(np.roll(small.data[:, :, ::-1], 1, axis=2).copy(), VOXEL)
    assert fit.score > 0.9
    assert fit.score > alignment.align_map(mirror, result.volume, radius_cycles=6).score + 0.01


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
    assert alignment.correlation(result.half1, result.half2, radius_cycles=4) > 0.8


def test_table_keeps_ids_and_columns(result: Average, data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    assert result.particles["particle_id"].tolist() == data[0].ids.tolist()
    assert (result.particles["source"] == "phantom").all()
    assert np.isfinite(result.particles["score"]).all()


def test_progress_tells_how_far(result: Average, seen: list[Progress]) -> None:
    assert [step.iteration for step in seen] == list(range(1, seen[0].of + 1))
    assert {step.stage for step in seen} == {"search", "refine"}
    assert 200 < seen[-1].volume.extent[0] <= BOX * VOXEL
    assert seen[-1].resolution < seen[0].resolution


@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")  # so few particles, so few iterations
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


@pytest.mark.parametrize("seed", range(3))
def test_noise_in_a_small_mask_is_not_reliable(small: Volume, seed: int) -> None:
    # So few numbers are in it that the halves can be turned until they agree.
    noise, _, _ = imaged(small, 40, snr=1e-6, seed=4 + seed)
    with pytest.warns(UserWarning, match="not reliable"):
        result = averaging.average(noise, seed=seed, iterations=6, starts=1, mask_diameter=150, device="cpu", progress=False)
    assert not result.reliable


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_gives_no_structure_and_says_so(small: Volume, seed: int) -> None:
    noise, _, _ = imaged(small, 40, snr=1e-6, seed=4 + seed)
    with pytest.warns(UserWarning, match=r"agree on nothing finer than .* Å\): this average is not reliable"):
        result = averaging.average(noise, seed=seed, iterations=12, device="cpu", progress=False)
    assert not result.reliable
    # Nothing says how large it is.
    assert result.record["mask"] > 0.8 * noise.box * noise.voxel_size
    # The halves are turned onto each other, which makes the first shells of any two maps alike.
    assert result.resolution > 60
    assert result.fsc["fsc"].iloc[5:].mean() < 0.143
    assert abs(result.particles["agreement"].mean()) < 0.2
    assert "not reliable" in repr(result)


def test_particles_agree_with_the_half_that_they_are_not_in(result: Average, data: tuple, small: Volume) -> None:
    assert result.reliable
    assert result.particles["agreement"].between(0.2, 1).all()
    # Some boxes of noise among the particles stand out, since they have no part in what they are compared with.
    empty, _, _ = imaged(small, 10, snr=1e-6, seed=9)
    table = empty.particles.assign(particle_id=np.arange(10))
    mixed = subtomograms.join([data[0].take(data[0].ids[:40]), Subtomograms(empty.volumes, table, VOXEL)])
    found = averaging.average(mixed, seed=1, device="cpu", progress=False).particles.set_index("particle_id")["agreement"]
    assert found[found.index < 10].max() < 0.3 < found[found.index >= 100].min()


class CutError(Exception):
    """What a kill looks like from within."""


@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")  # so few particles, so few iterations
def test_a_cut_run_ends_as_an_unbroken_one(data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "WRITE_INTERVAL", 0.0)
    few, path = data[0].take(data[0].ids[:16]), tmp_path / "state.safetensors"
    options = {"seed": 3, "iterations": 5, "device": "cpu"}
    straight = averaging.average(few, progress=False, **options)
    for moment in (2, 4):  # in the search, and in the local refinement

        def cut(now: Progress, moment: int = moment) -> None:
            if now.iteration == moment:
                raise CutError

        with pytest.raises(CutError):
            averaging.average(few, progress=cut, checkpoint=path, **options)
    seen: list[int] = []
    resumed = averaging.average(few, progress=lambda now: seen.append(now.iteration), checkpoint=path, **options)
    assert seen == [5]
    np.testing.assert_array_equal(resumed.volume.data, straight.volume.data)
    pd.testing.assert_frame_equal(resumed.particles, straight.particles)
    assert not path.exists()


def test_two_kernels_do_not_share_a_checkpoint(data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PATIENCE", 0.1)
    path, state = tmp_path / "state.safetensors", Checkpoint(tmp_path / "state.safetensors", {})
    with state.lock(), pytest.raises(BlockingIOError, match=r"another process has been writing .*state\.safetensors"):
        averaging.average(data[0], data[0].ids[:16], seed=3, iterations=4, progress=False, checkpoint=path, device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")  # so few particles, so few iterations
def test_a_cut_run_from_a_map_orients_nothing_again(
    data: tuple, small: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "WRITE_INTERVAL", 0.0)
    few, path = data[0].take(data[0].ids[:12]), tmp_path / "state.safetensors"
    options = {"seed": 3, "iterations": 3, "start": small, "progress": False, "device": "cpu"}
    straight = averaging.average(few, **options)
    averaging.average(few, checkpoint=path, stop=lambda: True, **options)
    assert path.exists()
    monkeypatch.setattr(pose_search, "align_to_map", None)
    resumed = averaging.average(few, checkpoint=path, **options)
    np.testing.assert_array_equal(resumed.volume.data, straight.volume.data)
    pd.testing.assert_frame_equal(resumed.particles, straight.particles)


@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")  # so few particles, so few iterations
def test_a_checkpoint_of_another_average_is_refused(data: tuple, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    ids = data[0].ids
    averaging.average(data[0], ids[:16], seed=3, iterations=4, progress=False, checkpoint=path, stop=lambda: True, device="cpu")
    with pytest.raises(ValueError, match="is of a call begun otherwise"):
        averaging.average(data[0], ids[1:17], seed=3, iterations=4, progress=False, checkpoint=path, device="cpu")
    with pytest.raises(ValueError, match=r"a checkpoint is a \.safetensors file, got state\.json"):
        averaging.average(data[0], ids[:16], seed=3, checkpoint=tmp_path / "state.json")


def test_given_angles_are_refined_and_nothing_is_searched(data: tuple) -> None:
    whole, turns, shifts = data
    generator = torch.Generator().manual_seed(7)
    off = rotations.from_quaternions(torch.cat([torch.ones(80, 1), 0.06 * torch.randn(80, 3, generator=generator)], dim=1))
    table = whole.particles.copy()
    table[["rot", "tilt", "psi"]] = rotations.to_euler((off.double() @ torch.from_numpy(turns)).numpy())
    steps: list[Progress] = []
    near = Subtomograms(whole.volumes, table, VOXEL)
    result = averaging.average(near, seed=1, given=True, progress=steps.append, device="cpu")
    assert {step.stage for step in steps} == {"refine"}
    found = torch.from_numpy(particles.matrices(result.particles))
    # The frame of the average is that of the angles given, but for the turn of one half onto the other.
    apart = rotations.angle_between(found, torch.from_numpy(turns)).median()
    before = rotations.angle_between(off.double(), torch.eye(3, dtype=torch.float64).expand(80, 3, 3)).median()
    assert float(apart) < 0.7 * float(before)
    assert np.linalg.norm(particles.positions(result.particles) - BOX // 2 * VOXEL - shifts, axis=1).mean() < 0.6 * VOXEL


@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")  # so few particles, so few iterations
def test_a_store_is_averaged_as_memory_is(data: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = data[0].take(data[0].ids[:12])
    few.save(tmp_path / "some.zarr")
    stored = subtomograms.open(tmp_path / "some.zarr")
    here = Subtomograms(np.asarray(stored.volumes[:], dtype=np.float32), few.particles, VOXEL)
    options = {"seed": 2, "iterations": 3, "progress": False, "device": "cpu"}
    one = averaging.average(here, **options)
    # Coefficients in a file instead of in memory change nothing.
    monkeypatch.setattr(coefficients, "MAX_MEMORY", 0)
    two = averaging.average(stored, stored.ids, **options)
    np.testing.assert_array_equal(one.volume.data, two.volume.data)


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


def test_bad_input_is_refused(data: tuple[Subtomograms, np.ndarray, np.ndarray]) -> None:
    whole, turns, shifts = data
    with pytest.raises(ValueError, match="1 of 2 particle ids"):
        averaging.average(whole, [100, 7], seed=0)
    with pytest.raises(ValueError, match="at least 4 particles, got 3"):
        averaging.average(whole, [100, 101, 102], seed=0)
    with pytest.raises(ValueError, match="mask_diameter must be over 0"):
        averaging.average(whole, seed=0, mask_diameter=4000.0)
    with pytest.raises(ValueError, match="at least 2 iterations"):
        averaging.average(whole, seed=0, iterations=1)
    with pytest.raises(ValueError, match="80 subtomograms need rotations"):
        averaging.with_poses(whole, turns[:3], shifts)
    with pytest.raises(ValueError, match="proper rotations"):
        averaging.with_poses(whole, -turns, shifts)


@pytest.fixture(scope="module")
def threefold(small: Volume) -> tuple[Subtomograms, Volume]:
    """Subtomograms of three phantoms about an axis, and the map that they show."""
    aside = volumes.transform(torch.from_numpy(small.data)[None], torch.eye(3)[None], torch.tensor([[0.0, 3.0, 1.0]]))[0]
    turns = torch.from_numpy(symmetry.group("C3")).float()
    truth = Volume(volumes.transform(aside.expand(3, -1, -1, -1), turns).sum(0).numpy(), VOXEL)
    return imaged(truth, 40, snr=0.2, seed=6)[0], truth


def test_symmetry_is_found_and_used(threefold: tuple[Subtomograms, Volume]) -> None:
    data, truth = threefold
    options = {"seed": 1, "iterations": 12, "device": "cpu"}
    steps: list[Progress] = []
    plain = averaging.average(data, progress=False, **options)
    found = averaging.average(data, symmetry="find", progress=steps.append, **options)
    assert found.record["symmetry"] == "C3"
    assert steps[-1].iteration == steps[-1].of == len(steps)
    # It stands in the standard frame, and is better than without.
    again = alignment.apply(found.volume, alignment.Fit(symmetry.group("C3")[1], np.zeros(3), 1.0))
    assert alignment.correlation(found.volume, again, radius_cycles=6) > 0.97
    scores = [alignment.align_map(truth, one.volume, radius_cycles=8).score for one in (plain, found)]
    assert scores[1] > scores[0]


def test_an_unknown_symmetry_is_refused_before_work(data: tuple) -> None:
    with pytest.raises(ValueError, match="symmetry is C1 to C60"):
        averaging.average(data[0], seed=1, symmetry="C")


def test_a_map_to_start_from_is_kept_to_its_resolution_and_recorded(small: Volume) -> None:
    data, turns, _ = imaged(small, 60, snr=0.3, seed=5)
    started = averaging.average(data, seed=3, start=small, start_resolution=60.0, mask_diameter=300.0, progress=False)
    assert started.record["start"]["resolution"] == 60.0
    # It stays in the frame of the map, and the poses are those that were put in.
    assert alignment.correlation(started.volume, small, radius_cycles=7) > 0.9
    found = particles.matrices(started.particles)
    angles = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", found, turns) - 1) / 2, -1, 1)))
    assert np.median(angles) < 12
    mirrored = Volume(small.data[:, :, ::-1], small.voxel_size)
    with warnings.catch_warnings():
        # Halves may or may not agree on a wrong structure, which a longer search would leave.
        warnings.filterwarnings("ignore", message="the two halves")
        right, wrong = (
            averaging.average(
                data, seed=3, start=one, start_resolution=60.0, mask_diameter=300.0, iterations=3, progress=False, device="cpu"
            )
            for one in (small, mirrored)
        )
    assert wrong.particles["score"].mean() < right.particles["score"].mean()


def test_a_start_that_cannot_be_one_is_refused(data: tuple[Subtomograms, np.ndarray, np.ndarray], small: Volume) -> None:
    boxes = data[0]
    with pytest.raises(ValueError, match="either start="):
        averaging.average(boxes, seed=1, start=small, given=True)
    with pytest.raises(ValueError, match="a constant map is no start"):
        averaging.average(boxes, seed=1, start=Volume(np.ones((8, 8, 8)), 20.0))
    for wrong in (10.0, 1000.0, np.nan):
        with pytest.raises(ValueError, match="the resolution must lie within 40 to 100 Å"):
            averaging.average(boxes, seed=1, start=small, start_resolution=wrong)
