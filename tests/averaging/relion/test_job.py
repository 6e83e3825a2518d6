"""RELION itself agrees with our poses, and its refinement comes back as an average: small sets, seconds each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from tomolab import averaging, fourier, io, particles, rotations, volumes
from tomolab.averaging import Average, alignment
from tomolab.averaging.relion import job, results
from tomolab.io.lists.star import parsing
from tomolab.io.lists.star.columns import EULER
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(job.available() is None, reason="RELION is not installed (apt-get install relion openmpi-bin)"),
]
BOX, VOXEL, COUNT = 16, 20.0, 20
OPTIONS = {"diameter": 280.0, "seed": 1, "progress": False}
QUICK = ["--auto_local_healpix_order", "2", "--auto_ignore_angles", "--offset_range", "2", "--low_resol_join_halves", "160"]
"""Few iterations with local searches soon, which is enough for a map of 16 voxels."""


@pytest.fixture(scope="module")
def small(phantom: Volume) -> Volume:
    return volumes.fit(volumes.resample(phantom, VOXEL), BOX)


@pytest.fixture(scope="module")
def observed(small: Volume) -> Subtomograms:
    """Phantoms in random poses beside the centres of their boxes, of which the table knows, under two wedges, with noise."""
    generator = torch.Generator().manual_seed(5)
    turns = rotations.random(COUNT, generator)
    shifts = 3 * torch.rand(COUNT, 3, generator=generator) - 1.5
    fine = fourier.resize(torch.from_numpy(small.data), [2 * BOX] * 3)
    clean = volumes.transform(fine.expand(COUNT, -1, -1, -1), turns, shifts, box=BOX, step=2.0)
    noisy = clean + 0.5 * clean.std() * torch.randn(clean.shape, generator=generator)
    tilts = torch.tensor([[-60.0, 60.0], [-50.0, 64.0]])[torch.arange(COUNT) % 2]
    wedge = fourier.wedge(BOX, tilts[:, 0], tilts[:, 1])
    seen = torch.fft.irfftn(torch.fft.rfftn(noisy, dim=(1, 2, 3)) * wedge, s=(BOX,) * 3, dim=(1, 2, 3))
    table = particles.table(
        np.full((COUNT, 3), 1000.0), ids=np.arange(COUNT)[::-1] * 7 + 3, tilts=tilts.numpy(), label="two words"
    )
    table = table.assign(**dict(zip(["true_z", "true_y", "true_x"], (1000 + VOXEL * shifts.numpy()).T, strict=True)))
    table[["true_rot", "true_tilt", "true_psi"]] = rotations.to_euler(turns.double().numpy())
    return Subtomograms(volumes.normalise(seen).numpy(), table, VOXEL)


def truth(observed: Subtomograms) -> pd.DataFrame:
    """The table with its true poses."""
    names = ["z", "y", "x", "rot", "tilt", "psi"]
    return observed.particles.assign(**{name: observed.particles[f"true_{name}"] for name in names})


def left_over(folder: Path) -> list[str]:
    """RELION's processes that work in this folder."""
    found = []
    for process in psutil.process_iter(["name", "cwd", "status"]):
        about = process.info
        if "relion" in (about["name"] or "") and about["cwd"] == str(folder) and about["status"] != psutil.STATUS_ZOMBIE:
            found.append(about["name"])
    return found


@pytest.fixture(scope="module")
def folder(observed: Subtomograms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("relion") / "set"
    return job.write(observed, place, poses=truth(observed), progress=False)


@pytest.fixture(scope="module")
def stopped(folder: Path) -> Average:
    """A refinement that was stopped after its first iteration."""
    first = lambda: max(results.iterations(folder), default=0) > 0  # noqa: E731
    return job.refine(folder, **OPTIONS, extra=QUICK, stop=first)


@pytest.fixture(scope="module")
def told() -> list[job.RelionProgress]:
    return []


@pytest.fixture(scope="module")
def refined(folder: Path, stopped: Average, told: list[job.RelionProgress]) -> Average:
    """The same refinement, taken up again."""
    return job.refine(folder, **OPTIONS | {"progress": told.append}, extra=QUICK)


def test_relion_averages_our_poses_to_our_average(observed: Subtomograms, folder: Path, tmp_path: Path) -> None:
    table = truth(observed)
    turns = particles.matrices(table)
    shifts = particles.positions(table) - particles.positions(observed.particles)
    ours, _ = averaging.with_poses(observed, turns, shifts, device="cpu")

    def theirs(name: str, turns: np.ndarray, shifts: np.ndarray) -> float:
        poses = table.assign(**dict(zip(["z", "y", "x"], (1000 + shifts).T, strict=True)))
        poses[["rot", "tilt", "psi"]] = rotations.to_euler(turns)
        place = job.write(observed, tmp_path / name, poses=poses, progress=False)
        return alignment.correlation(job.reconstruct(place), ours, radius_cycles=7)

    # The mirror at x = 0 turns the other way about z and y.
    mirrored = turns * np.outer([1, 1, -1], [1, 1, -1])
    right = alignment.correlation(job.reconstruct(folder), ours, radius_cycles=7)
    assert right > 0.995
    wrong = {
        "inverse": theirs("inverse", turns.transpose(0, 2, 1), shifts),
        "mirrored": theirs("mirrored", mirrored, shifts * [1, 1, -1]),
        "opposite": theirs("opposite", turns, -shifts),
    }
    assert max(wrong.values()) < 0.9, wrong


def test_one_half_is_averaged_alone(observed: Subtomograms, tmp_path: Path) -> None:
    table = truth(observed).assign(half=np.arange(COUNT) % 2 + 1)
    place = job.write(observed, tmp_path / "halves", poses=table, progress=False)
    turns, shifts = particles.matrices(table), particles.positions(table) - 1000
    even, _ = averaging.with_poses(observed.take(observed.ids[::2]), turns[::2], shifts[::2], device="cpu")
    scores = [alignment.correlation(job.reconstruct(place, subset=half), even, radius_cycles=7) for half in (1, 2)]
    assert scores[0] > 0.998
    assert scores[1] < 0.995


def test_a_stopped_refinement_gives_its_last_iteration(stopped: Average, folder: Path, observed: Subtomograms) -> None:
    assert not left_over(folder)
    assert stopped.record["converged"] is False
    assert stopped.record["iterations"] >= 1
    assert sorted(stopped.particles["particle_id"]) == sorted(observed.ids)
    assert stopped.half1.shape == (BOX,) * 3


def test_it_goes_on_and_finds_the_phantom(
    refined: Average, stopped: Average, told: list[job.RelionProgress], small: Volume
) -> None:
    assert refined.record["converged"] is True
    assert min(now.iteration for now in told if now.iteration) > stopped.record["iterations"]
    assert {"expectation", "maximization"} <= {now.stage for now in told}
    assert told[-1].resolution < 80
    fit = alignment.align_map(small, refined.volume, radius_cycles=6)
    mirror = Volume(np.roll(small.data[:, :, ::-1], 1, axis=2).copy(), VOXEL)
    assert fit.score > 0.985
    assert fit.score > alignment.align_map(mirror, refined.volume, radius_cycles=6).score + 0.015


def test_poses_and_columns_come_back(refined: Average, observed: Subtomograms, small: Volume) -> None:
    found = refined.particles.set_index("particle_id").loc[observed.ids].reset_index()
    table = truth(observed)
    assert (found["label"] == "two words").all()
    assert set(found["half"]) == {1, 2}
    assert np.isfinite(found["score"]).all()
    assert (
        found[["tilt_min", "tilt_max"]].to_numpy().tolist() == observed.particles[["tilt_min", "tilt_max"]].to_numpy().tolist()
    )
    # The frame of the map may drift: a reference point r lies at R (turn r + shift) in the particle.
    fit = alignment.align_map(small, refined.volume, radius_cycles=6)
    turns = particles.matrices(found)
    off = rotations.angle_between(torch.from_numpy(turns @ fit.rotation), torch.from_numpy(particles.matrices(table)))
    away = np.linalg.norm(particles.positions(found) + turns @ fit.shift - particles.positions(table), axis=1)
    assert float(off.median()) < 15
    assert np.median(away) < 0.7 * VOXEL < np.median(np.linalg.norm(particles.positions(table) - 1000, axis=1))


def test_maps_and_correlation_come_back(refined: Average, folder: Path) -> None:
    assert refined.volume.voxel_size == VOXEL
    assert refined.fsc["resolution"].iloc[[0, -1]].tolist() == [BOX * VOXEL, 2 * VOXEL]
    assert refined.fsc["relion"].iloc[:2].min() > 0.9
    assert refined.record["together"] == 160
    assert refined.record["version"] == job.available().version
    assert alignment.correlation(refined.half1, refined.half2, radius_cycles=3) > 0.9
    again = job.refine(folder, **OPTIONS, extra=QUICK)
    np.testing.assert_array_equal(again.volume.data, refined.volume.data)


def test_other_options_do_not_overwrite(refined: Average, folder: Path, small: Volume) -> None:
    with pytest.raises(ValueError, match=r"run holds a refinement with other options \(diameter 280.0 instead of 250.0\)"):
        job.refine(folder, **OPTIONS | {"diameter": 250.0}, extra=QUICK)
    with pytest.raises(ValueError, match=r"other options \(reference None instead of"):
        job.refine(folder, **OPTIONS, extra=QUICK, reference=small)


def test_a_refinement_started_by_hand_is_read(refined: Average, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "Refine3D" / "job001")
    (tmp_path / "Refine3D" / "job001" / "options.json").unlink()
    theirs = job.read(tmp_path, "Refine3D/job001")
    np.testing.assert_array_equal(theirs.volume.data, refined.volume.data)
    assert "parameters" not in theirs.record
    (tmp_path / "Refine3D" / "job001" / "run_half2_class001_unfil.mrc").unlink()
    with pytest.raises(FileNotFoundError, match="no half maps"):
        job.read(tmp_path, "Refine3D/job001")
    with pytest.raises(FileNotFoundError, match="no finished iteration"):
        job.read(tmp_path, "other")


def test_without_orientations_it_starts_at_random(observed: Subtomograms, tmp_path: Path, small: Volume) -> None:
    place = job.write(observed, tmp_path / "set", progress=False)
    with pytest.raises(RuntimeError, match="stopped before it had finished an iteration"):
        job.refine(place, **OPTIONS, extra=QUICK, stop=lambda: True)
    assert not left_over(place)
    angles = parsing.numbers(parsing.blocks(place / "run" / "start.star")["particles"], EULER)
    assert np.ptp(angles, axis=0).min() > 90
    start = io.read_volume(place / "run" / "reference.mrc")
    assert alignment.correlation(start, small, radius_cycles=7) < 0.9
    # What is left of a refinement without an iteration does not stand in the way of another.
    assert json.loads((place / "run" / "options.json").read_text())["parameters"]["seed"] == 1


def test_no_more_iterations_than_asked_for(folder: Path, small: Volume) -> None:
    arguments = OPTIONS | {"name": "short", "reference": small, "extra": ["--auto_iter_max", "1", *QUICK]}
    first, again = (job.refine(folder, **arguments) for _ in range(2))
    assert first.record["iterations"] == again.record["iterations"] == 1
    assert again.record["converged"] is False
    np.testing.assert_array_equal(first.half1.data, again.half1.data)


def test_failure_tells_what_relion_said(folder: Path, small: Volume) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)relion_refine_mpi failed with exit code.*symmetry.*run\.log"):
        job.refine(folder, **OPTIONS, symmetry="Q9", reference=small, name="failed")
    assert not left_over(folder)


def test_bad_input_is_refused(folder: Path, small: Volume, tmp_path: Path) -> None:
    for arguments, message in (
        ({"diameter": 400.0}, "at most the box, 320 Å, got 400"),
        ({"processes": 2}, "at least 3 MPI processes and 1 thread are needed, got 2 and 1"),
        ({"reference": volumes.fit(small, 20)}, "16³ voxels of 20 Å, but the reference is"),
        ({"name": "../other"}, "cannot name a file"),
    ):
        with pytest.raises(ValueError, match=message):
            job.refine(folder, **OPTIONS | arguments)
    with pytest.raises(FileNotFoundError, match=r"make the folder with averaging\.relion\.write"):
        job.refine(tmp_path, **OPTIONS)


@pytest.mark.parametrize("part", ["optimiser", "data", "sampling", "half1_model", "half2_model"])
def test_an_iteration_is_not_finished_while_a_file_is_empty(tmp_path: Path, part: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("optimiser", "data", "sampling", "half1_model", "half2_model"):
        (run / f"run_it001_{name}.star").write_text("" if name == part else "data_\n")
    assert results.iterations(tmp_path) == []
    (run / f"run_it001_{part}.star").write_text("data_\n")
    assert results.iterations(tmp_path) == [1]
