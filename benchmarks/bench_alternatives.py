"""Other ways to find the first poses, from random orientations, on the same particles and with the same last step.

    python benchmarks/bench_alternatives.py --seeds 3

Each search makes 13 iterations with 3,000 fresh random rotations and all shifts up to a tenth of the box, on the same growing
detail as ours, and scores against the sum of all particles, their own part in it included:

constrained correlation, best pose    the correlation over the coefficients that a particle has, of which the best pose counts
                                      (Foerster and others 2008; iterated as by Xu, Beck and Alber 2012, their fast rotational
                                      matching replaced by trying all rotations)
likelihood, best pose                 the score of `alignment.exhaustive_search`, of which the best pose counts
likelihood, shared by fifty           the same, shared among 50 poses: expectation and maximisation, as FAML
ours                                  `averaging.average`: 700 rotations refined, folds, halves, the better of two starts

What they find is refined by `averaging.average(given=True)`, and held against the truth and the average in the true poses.
"""

import argparse
import time
from typing import Any

import numpy as np
import record
import torch
from bench_averaging import BOX, VOXEL_SIZE, imaged, poses, to_truth
from torch import Tensor

from tomolab import averaging, particles, rotations, volumes
from tomolab.averaging import Poses, alignment, coefficients, reconstruction, refinement
from tomolab.averaging.coefficients import Coefficients
from tomolab.simulation import densities
from tomolab.subtomograms import Subtomograms

TURNS = 3000
METHODS = {"constrained correlation, best pose": 1, "likelihood, best pose": 1, "likelihood, shared by fifty": 50}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--names", nargs="+", default=["ribosome_70s", "mm_cpn_open"])
    options = parser.parse_args()
    rows = []
    for name, density in densities.load(options.names, voxel_size=VOXEL_SIZE, box=40).items():
        truth = volumes.fit(density, BOX)
        data = imaged({name: truth}, options.count, snr=options.snr, seed=1)
        oracle, _ = to_truth(averaging.with_poses(data, *poses(data))[0], truth)
        for method in (*METHODS, "ours"):
            found = [one(method, data, truth, seed) for seed in range(1, options.seeds + 1)]
            reached, seconds = np.array(found).T
            succeeded = int((BOX * VOXEL_SIZE / reached >= BOX * VOXEL_SIZE / oracle - 1).sum())
            rows.append(
                {"complex": name, "method": method, "oracle (Å)": oracle, "reached (Å)": np.median(reached)}
                | {"worst (Å)": reached.max(), "succeeded": f"{succeeded} of {len(found)}", "seconds": np.median(seconds)}
            )
    record.write("alternatives", rows, settings=vars(options) | {"box": BOX, "voxel size (Å)": VOXEL_SIZE})


def one(method: str, data: Subtomograms, truth: volumes.Volume, seed: int) -> tuple[float, float]:
    """Resolution against the truth, and seconds."""
    start, options = time.perf_counter(), {"seed": seed, "progress": False}
    if method == "ours":
        average = averaging.average(data, **options)
    else:
        average = averaging.average(searched(method, data, seed), given=True, **options)
    seconds = time.perf_counter() - start
    return to_truth(average.volume, truth)[0], seconds


def searched(method: str, data: Subtomograms, seed: int) -> Subtomograms:
    """The particles with the poses that a search finds."""
    box, settings = refinement.choose_settings(data)
    generator = torch.Generator().manual_seed(seed)
    every = coefficients.read(
        data, box=box, radius_cycles=settings.radius_cycles * refinement.GROWTH[-1], device=generator.device
    )
    noise = reconstruction.shell_means(every, (every.values.abs() ** 2).sum(0))
    fold, found = (
        torch.arange(len(data)) % refinement.FOLDS,
        alignment.random_poses(len(data), METHODS[method], generator=generator),
    )
    for step, growth in enumerate(refinement.GROWTH):
        part = every.inside(settings.radius_cycles * growth)
        made = reconstruction.make_references(
            part, found, fold, noise=noise, diameter_voxels=settings.diameter_voxels, max_damping=2.0
        )
        if step:
            noise = reconstruction.measure_noise(part, found, fold, references=made, noise=noise)
        grid, turns = coefficients.oversample(made.density), rotations.random(TURNS, generator)
        shifts = alignment.shift_grid(settings.max_shift_voxels, box / (4 * settings.radius_cycles * growth))
        if method.startswith("constrained"):
            found = correlated(grid, part, turns=turns, shifts=shifts)
        else:
            expected: dict[str, Any] = {
                "noise": noise[reconstruction.shell_index(part)],
                "shift_sigma_voxels": settings.max_shift_voxels / 2,
            }
            found = alignment.exhaustive_search(grid, part, turns=turns, shifts=shifts, keep=METHODS[method], **expected)
    places = particles.positions(data.particles) + found.shifts[:, 0].double().numpy() * data.voxel_size
    angles = rotations.to_euler(found.rotations[:, 0].double().numpy())
    table = data.particles.assign(**dict(zip(["rot", "tilt", "psi"], angles.T, strict=True)))
    return moved(data, table, places)


def moved(data: Subtomograms, table: Any, places: np.ndarray) -> Subtomograms:
    """The same boxes, shifted so that each particle lies in the centre of its own, where `given` expects it."""
    off = torch.from_numpy((places - particles.positions(data.particles)) / data.voxel_size).float()
    points = torch.cartesian_prod(*[torch.fft.fftfreq(data.box) * data.box] * 3)
    waves = coefficients.shift_phases(points, -off, data.box).reshape(-1, *[data.box] * 3)
    shifted = torch.fft.ifftn(
        torch.fft.fftn(torch.from_numpy(np.asarray(data.volumes)), dim=(1, 2, 3)) * waves, dim=(1, 2, 3)
    ).real
    return Subtomograms(shifted.numpy(), table, data.voxel_size)


def correlated(grid: Tensor, data: Coefficients, *, turns: Tensor, shifts: Tensor) -> Poses:
    """The pose of the largest constrained correlation: over the coefficients observed, by the power of the model in them."""
    model = coefficients.sample(grid, turns, data.points)
    power = (model.abs() ** 2 @ data.wedges.T).sqrt()
    model, best = torch.view_as_real(model).flatten(1), []
    waves = coefficients.shift_phases(data.points, -shifts, data.box)
    for rows in torch.arange(len(data)).split(20):
        product = torch.view_as_real(data.values[rows][:, None] * waves).flatten(2) @ model.T
        score, at = (product / power.T[data.wedge_index[rows]][:, None]).max(1)
        top, turn = score.max(1)
        best.append((turns[turn], shifts[at.gather(1, turn[:, None])[:, 0]], top))
    turned, placed, scores = (torch.cat(column)[:, None] for column in zip(*best, strict=True))
    return Poses(turned, placed, scores, torch.ones_like(scores))


if __name__ == "__main__":
    main()
