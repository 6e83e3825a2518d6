"""Hands: tilts of the right sign give the known hand, of the other sign the other, and noise or a ball neither."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import blob

from tomolab import averaging, particles, rotations, subtomograms, tomograms, volumes
from tomolab.averaging import Average, handedness
from tomolab.tomograms import projection
from tomolab.volumes import Volume

SHAPE, BOX, SIZE, COUNT, MASK = (48, 160, 160), 32, 10.0, 16, 280.0
TILTS = np.arange(-60, 61, 3.0)
FLIP = np.diag([-1.0, 1.0, 1.0])
"""What the other sign of all tilts does to a tomogram."""


@pytest.fixture(scope="module")
def specimen(phantom: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of phantoms in random orientations, their places from the middle in voxels, and their rotations."""
    generator = torch.Generator().manual_seed(3)
    turns = rotations.random(COUNT, generator)
    turned = volumes.transform(torch.from_numpy(phantom.data).expand(COUNT, -1, -1, -1), turns).numpy()
    places = np.stack(np.meshgrid([0], *[[-54, -18, 18, 54]] * 2, indexing="ij"), -1).reshape(-1, 3)
    density = np.zeros(SHAPE, dtype=np.float32)
    for one, place in zip(turned, places, strict=True):
        low = place + np.array(SHAPE) // 2 - BOX // 2
        density[tuple(slice(at, at + BOX) for at in low)] += one
    return projection.project(Volume(density, SIZE), TILTS, progress=False), places, turns.double().numpy()


def averaged(specimen: tuple, *, sign: int, noise: float = 0.5) -> Average:
    """The average of the particles of a tomogram that was reconstructed with tilts of a sign."""
    images, places, turns = specimen
    noisy = images + noise * images.std() * np.random.default_rng(1).normal(size=images.shape)
    tomogram = tomograms.reconstruct(noisy, sign * TILTS, voxel_size=SIZE, shape=SHAPE, invert=False, clip=None, progress=False)
    # Where the particles are then, and how they are turned, which no proper rotation tells from the truth.
    flip = np.eye(3) if sign > 0 else FLIP
    table = particles.table(
        (places @ flip + np.array(SHAPE) // 2) * SIZE, ids=np.arange(COUNT), rotations=flip @ turns @ flip, tilts=(-60, 60)
    )
    cut = subtomograms.extract(tomogram, table, box=BOX)
    parts = [cut.take(cut.ids[first::step]) for first, step in ((0, 1), (0, 2), (1, 2))]
    maps = [
        averaging.with_poses(part, particles.matrices(part.particles), np.zeros((len(part), 3)), device="cpu")[0]
        for part in parts
    ]
    return Average(*maps, averaging.correlate(*maps[1:], diameter_voxels=MASK / SIZE), cut.particles, {"mask": MASK})


@pytest.fixture(scope="module")
def mirrored(specimen: tuple, phantom: Volume) -> tuple[Average, handedness.Hand]:
    """An average from tilts of the wrong sign, and what is said of it."""
    average = averaged(specimen, sign=-1)
    return average, handedness.compare_hands(average, phantom)


def test_the_sign_of_the_tilts_is_found(specimen: tuple, phantom: Volume, mirrored: tuple[Average, handedness.Hand]) -> None:
    right, wrong = handedness.compare_hands(averaged(specimen, sign=1), phantom), mirrored[1]
    assert right.verdict == handedness.AS_IT_IS
    assert 0.6 < right.margin < 1.4
    assert right.deviations > 2 * handedness.DEVIATIONS
    assert wrong.verdict == handedness.MIRRORED
    assert -1.4 < wrong.margin < -0.6
    assert "other invert_tilts" in wrong.advice
    # Both resolutions change places.
    np.testing.assert_allclose(wrong.resolutions, right.resolutions[::-1], rtol=0.15)
    assert str(right).startswith(f"as it is: FSC 0.5 with the known map at {right.resolutions[0]:.0f} Å, with its mirror image")


def test_what_cannot_tell_is_undecided(specimen: tuple, phantom: Volume) -> None:
    """Too much noise, nothing but noise, or a structure that is its own mirror image."""
    assert handedness.compare_hands(averaged(specimen, sign=1, noise=40.0), phantom).verdict == handedness.UNDECIDED
    noise = np.random.default_rng(0).normal(size=(BOX,) * 3)
    assert handedness.compare_hands(Volume(noise, SIZE), phantom, mask_diameter=MASK).verdict == handedness.UNDECIDED
    ball = Volume(blob(BOX, (0, 0, 0), 5.0) + 0.5 * blob(BOX, (0, 4, 8), 3.0), SIZE)
    assert handedness.compare_hands(ball, ball, mask_diameter=MASK).verdict == handedness.UNDECIDED


def test_shares_of_an_expected_difference(phantom: Volume) -> None:
    """The margin is the share of the difference: of a map that holds as much of the one hand as of the other, none."""
    both = Volume((phantom.data + volumes.mirror(phantom).data) / 2, SIZE)
    assert abs(handedness.compare_hands(both, phantom, mask_diameter=MASK).margin) < handedness.MARGIN


def test_the_verdict_is_kept_with_the_average(mirrored: tuple[Average, handedness.Hand], phantom: Volume, tmp_path) -> None:
    average, found = mirrored
    found.add_to(average).save(tmp_path / "average")
    told = averaging.load(tmp_path / "average").record["hand"]
    assert told == json.loads(json.dumps(found.record))
    assert told["verdict"] == "mirrored"
    assert told["resolution"] > told["mirrored"]
    assert "hand" not in average.record
    with pytest.raises(ValueError, match="constant map"):
        handedness.compare_hands(replace(average, volume=Volume(np.ones((BOX,) * 3), SIZE)), phantom)
