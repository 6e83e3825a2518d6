"""Picking finds what was put in, where it was put, whatever the noise and the gold."""

import numpy as np
import pandas as pd
import pytest

from tomolab import particles, picking
from tomolab.volumes import Volume

VOXEL = 20.0
SHAPE = (48, 96, 104)


def balls(places: np.ndarray, *, diameter: float, shape: tuple[int, int, int] = SHAPE, voxel_size: float = VOXEL) -> np.ndarray:
    """Solid balls with soft edges at zyx places in Å."""
    grid = np.indices(shape) * voxel_size
    data = np.zeros(shape, dtype=np.float32)
    for place in places:
        away = np.sqrt(((grid - place[:, None, None, None]) ** 2).sum(0))
        data += 1 / (1 + np.exp((away - diameter / 2) / (voxel_size / 3)))
    return data


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    """25 places between grid points, at least 300 Å apart and 200 Å from the faces."""
    rng = np.random.default_rng(3)
    chosen: list[np.ndarray] = []
    while len(chosen) < 25:
        place = rng.uniform(200, np.array(SHAPE) * VOXEL - 220)
        if all(np.linalg.norm(place - other) > 300 for other in chosen):
            chosen.append(place)
    return np.array(chosen)


@pytest.fixture(scope="module")
def noisy(places: np.ndarray) -> Volume:
    signal = balls(places, diameter=250)
    return Volume(signal + np.random.default_rng(4).normal(0, 0.7, SHAPE), VOXEL)


def test_all_are_found_in_noise_and_nothing_else(noisy: Volume, places: np.ndarray) -> None:
    found = picking.difference_of_gaussians(noisy, diameter=250, threshold=8, tilts=(-54, 60), tomogram="TS_01")
    assert len(found) == 25
    agreement = picking.score(found, particles.table(places, tomogram="TS_01"), distance=60)
    assert agreement["f1"] == 1
    assert agreement["matched"]["distance"].max() < VOXEL
    assert set(found["tomogram"]) == {"TS_01"}
    assert set(found["tilt_min"]) == {-54}
    assert found["score"].is_monotonic_decreasing


def test_places_are_found_within_a_fraction_of_a_voxel(places: np.ndarray) -> None:
    found = picking.difference_of_gaussians(Volume(balls(places, diameter=250), VOXEL), diameter=250)
    matched = picking.score(found, particles.table(places), distance=60)["matched"]
    assert len(matched) == len(found) == 25
    assert matched["distance"].median() < 0.25 * VOXEL


def test_fine_voxels_are_binned_without_moving_anything() -> None:
    places = np.array([[203.0, 311.0, 402.0], [420.0, 207.0, 206.0]])
    fine = Volume(balls(places, diameter=250, shape=(90, 71, 83), voxel_size=7.0), 7.0)
    found = picking.difference_of_gaussians(fine, diameter=250, edge=0)
    matched = picking.score(found, particles.table(places), distance=60)["matched"]
    assert len(matched) == 2
    assert matched["distance"].max() < 5


def test_dark_blobs_are_not_picked(places: np.ndarray) -> None:
    volume = Volume(1 - balls(places, diameter=250), VOXEL)
    found = picking.difference_of_gaussians(volume, diameter=250, edge=0, threshold=0)
    assert picking.score(found, particles.table(places), distance=60)["recall"] < 0.2


def test_gold_does_not_own_the_picks(places: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    gold = rng.uniform(100, np.array(SHAPE) * VOXEL - 120, (200, 3))
    gold = gold[[np.linalg.norm(places - bead, axis=1).min() > 280 for bead in gold]][:3]
    volume = Volume(balls(places, diameter=250) + 60 * balls(gold, diameter=100) + rng.normal(0, 3, SHAPE), VOXEL)
    truth = particles.table(places)
    mask = picking.beads(volume, diameter=100)
    assert 0 < mask.mean() < 0.03
    masked = picking.difference_of_gaussians(volume, diameter=250, threshold=8, exclude=mask)
    assert picking.score(masked, truth, distance=80)["f1"] > 0.9
    clipped, unclipped = (
        picking.score(picking.difference_of_gaussians(volume, diameter=250, clip=clip), truth, distance=80)["recall"]
        for clip in (10.0, None)
    )
    assert clipped > 0.5
    assert unclipped < 0.1


def test_no_gold_gives_an_empty_mask(noisy: Volume) -> None:
    assert not picking.beads(noisy).any()


def test_edge_mask_and_distance_are_kept(noisy: Volume) -> None:
    everything = picking.difference_of_gaussians(noisy, diameter=250, threshold=0, edge=0)
    inner = picking.difference_of_gaussians(noisy, diameter=250, threshold=0, edge=300)
    assert 0 < len(inner) < len(everything)
    positions = particles.positions(inner)
    # A refined peak may lie up to half a voxel beyond the voxel it was found in.
    assert positions.min() >= 300 - VOXEL
    left = np.zeros(SHAPE, dtype=bool)
    left[:, :, :52] = True
    right = picking.difference_of_gaussians(noisy, diameter=250, threshold=0, exclude=left)
    assert right["x"].min() > 51 * VOXEL
    sparse = picking.difference_of_gaussians(noisy, diameter=250, threshold=0, distance=500)
    gaps = np.linalg.norm(particles.positions(sparse)[:, None] - particles.positions(sparse), axis=2)
    assert gaps[np.triu_indices(len(sparse), 1)].min() >= 500


def test_everything_excluded_gives_an_empty_table(noisy: Volume) -> None:
    found = picking.difference_of_gaussians(noisy, diameter=250, exclude=np.ones(SHAPE, dtype=bool))
    assert len(found) == 0
    assert "score" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diameter": 39.0}, r"between two voxels \(40 Å\).*got 39 Å"),
        ({"diameter": 961.0}, r"smallest extent of the volume \(960 Å\), got 961 Å"),
        ({"threshold": 21.0}, "threshold must lie between 0"),
        ({"exclude": np.zeros((2, 2, 2), dtype=bool)}, r"shape of the volume, \(48, 96, 104\), got \(2, 2, 2\)"),
    ],
)
def test_bad_settings_are_refused(noisy: Volume, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        picking.difference_of_gaussians(noisy, **({"diameter": 250.0} | change))


def test_a_constant_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to pick: the volume is 2 everywhere"):
        picking.difference_of_gaussians(Volume(np.full((20, 20, 20), 2), 10.0), diameter=100)


def test_beads_refuse_bad_sizes(noisy: Volume) -> None:
    with pytest.raises(ValueError, match="got 0 Å"):
        picking.beads(noisy, diameter=0)


def test_score_matches_one_to_one() -> None:
    truth = particles.table([[0, 0, 0], [0, 0, 100], [0, 0, 500]], ids=[10, 11, 12])
    picks = particles.table([[0, 0, 10], [0, 0, 20], [0, 0, 90], [0, 0, 900]], ids=[5, 6, 7, 8])
    agreement = picking.score(picks, truth, distance=50)
    assert agreement["precision"] == pytest.approx(2 / 4)
    assert agreement["recall"] == pytest.approx(2 / 3)
    assert agreement["f1"] == pytest.approx(4 / 7)
    assert agreement["matched"][["pick_id", "truth_id"]].to_numpy().tolist() == [[5, 10], [7, 11]]
    assert agreement["matched"]["distance"].tolist() == [10, 10]


def test_score_keeps_tomograms_apart() -> None:
    truth = particles.table([[0, 0, 0]], tomogram="A")
    picks = particles.table([[0, 0, 0]], tomogram="B")
    assert picking.score(picks, truth, distance=50)["recall"] == 0
    both = pd.concat([picks, particles.table([[0, 0, 0]], tomogram="A", ids=[3])])
    assert picking.score(both, truth, distance=50)["matched"]["pick_id"].tolist() == [3]


def test_score_without_picks_or_truth() -> None:
    truth, none = particles.table([[0, 0, 0]]), particles.table(np.empty((0, 3)))
    assert picking.score(none, truth, distance=50)["f1"] == 0
    with pytest.raises(ValueError, match="no true particles"):
        picking.score(truth, none, distance=50)
    with pytest.raises(ValueError, match="distance must be a positive number"):
        picking.score(truth, truth, distance=0)
