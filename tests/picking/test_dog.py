"""Picking finds what was put in, where it was put, whatever the noise and the gold."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import KDTree

from tomolab import particles, picking, simulation
from tomolab.simulation import Imaging, densities
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


def pick(volume: Volume, *, threshold: float = 3.0, distance: float | None = None, **settings) -> pd.DataFrame:
    return picking.choose(picking.candidates(volume, **settings), threshold=threshold, distance=distance)


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
    found = pick(noisy, diameter=250, threshold=8, tilts=(-54, 60), tomogram="TS_01")
    assert len(found) == 25
    agreement = picking.evaluate(found, particles.table(places, tomogram="TS_01"), distance=60)
    assert agreement["f1"] == 1
    assert agreement["matched"]["distance"].max() < VOXEL
    assert set(found["tomogram"]) == {"TS_01"}
    assert set(found["tilt_min"]) == {-54}
    assert found["score"].is_monotonic_decreasing


def test_places_are_found_within_a_fraction_of_a_voxel(places: np.ndarray) -> None:
    found = pick(Volume(balls(places, diameter=250), VOXEL), diameter=250)
    matched = picking.evaluate(found, particles.table(places), distance=60)["matched"]
    assert len(matched) == len(found) == 25
    assert matched["distance"].median() < 0.25 * VOXEL


def test_fine_voxels_are_binned_without_moving_anything() -> None:
    places = np.array([[203.0, 311.0, 402.0], [420.0, 207.0, 206.0]])
    fine = Volume(balls(places, diameter=250, shape=(90, 71, 83), voxel_size=7.0), 7.0)
    found = pick(fine, diameter=250, edge=0)
    matched = picking.evaluate(found, particles.table(places), distance=60)["matched"]
    assert len(matched) == 2
    assert matched["distance"].max() < 5


def test_dark_blobs_are_not_picked(places: np.ndarray) -> None:
    volume = Volume(1 - balls(places, diameter=250), VOXEL)
    found = pick(volume, diameter=250, edge=0, threshold=0)
    assert picking.evaluate(found, particles.table(places), distance=60)["recall"] < 0.2


def test_gold_does_not_own_the_picks(places: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    gold = rng.uniform(100, np.array(SHAPE) * VOXEL - 120, (200, 3))
    gold = gold[[np.linalg.norm(places - bead, axis=1).min() > 280 for bead in gold]][:3]
    volume = Volume(balls(places, diameter=250) + 60 * balls(gold, diameter=100) + rng.normal(0, 3, SHAPE), VOXEL)
    truth = particles.table(places)
    mask = picking.fiducial_mask(volume, diameter=100)
    assert 0 < mask.mean() < 0.03
    masked = pick(volume, diameter=250, threshold=8, exclude=mask)
    assert picking.evaluate(masked, truth, distance=80)["f1"] > 0.9
    clipped, unclipped = (
        picking.evaluate(pick(volume, diameter=250, clip=clip), truth, distance=80)["recall"] for clip in (10.0, None)
    )
    assert clipped > 0.5
    assert unclipped < 0.1


def test_edge_mask_and_distance_are_kept(noisy: Volume) -> None:
    everything = pick(noisy, diameter=250, threshold=0, edge=0)
    inner = pick(noisy, diameter=250, threshold=0, edge=300)
    assert 0 < len(inner) < len(everything)
    positions = particles.positions(inner)
    # A refined peak may lie up to half a voxel beyond the voxel it was found in.
    assert positions.min() >= 300 - VOXEL
    left = np.zeros(SHAPE, dtype=bool)
    left[:, :, :52] = True
    right = pick(noisy, diameter=250, threshold=0, exclude=left)
    assert right["x"].min() > 51 * VOXEL
    sparse = pick(noisy, diameter=250, threshold=0, distance=500)
    gaps = np.linalg.norm(particles.positions(sparse)[:, None] - particles.positions(sparse), axis=2)
    assert gaps[np.triu_indices(len(sparse), 1)].min() >= 500


def test_everything_excluded_gives_an_empty_table(noisy: Volume) -> None:
    found = pick(noisy, diameter=250, exclude=np.ones(SHAPE, dtype=bool))
    assert len(found) == 0
    assert "score" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diameter": 39.0}, r"between two voxels \(40 Å\).*got 39 Å"),
        ({"diameter": 961.0}, r"smallest extent of the volume \(960 Å\), got 961 Å"),
        ({"diameter": (250.0, 961.0)}, r"smallest extent of the volume \(960 Å\), got 961 Å"),
        ({"diameter": (250.0, 200.0)}, r"a number of Å or \(lowest, highest\), got \(250.0, 200.0\)"),
        ({"diameter": (100.0, 200.0, 300.0)}, r"a number of Å or \(lowest, highest\)"),
        ({"diameter": float("nan")}, "a number of Å or .*got nan"),
        ({"within": np.zeros((2, 2, 2), dtype=bool)}, r"the mask 'within' must have the shape of the volume"),
        ({"exclude": {"edge": np.zeros(SHAPE, dtype=bool)}}, "a mask cannot be called edge"),
        ({"threshold": 21.0}, "threshold must lie between 0"),
        ({"exclude": np.zeros((2, 2, 2), dtype=bool)}, r"shape of the volume, \(48, 96, 104\), got \(2, 2, 2\)"),
    ],
)
def test_bad_settings_are_refused(noisy: Volume, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pick(noisy, **({"diameter": 250.0} | change))


def test_a_constant_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to pick: the volume is 2 everywhere"):
        pick(Volume(np.full((20, 20, 20), 2), 10.0), diameter=100)


def test_a_range_finds_balls_of_all_sizes_and_tells_them_apart() -> None:
    """Solid balls, each found once, at its place, the larger with the larger diameter."""
    rng = np.random.default_rng(9)
    places = np.array(
        [[300.0, 310, 330], [640, 1500, 420], [420, 900, 1300], [600, 400, 1720], [330, 1480, 1650], [560, 790, 500]]
    )
    sizes = np.array([120.0, 160.0, 200.0, 250.0, 310.0, 380.0])
    data = sum(balls(place[None], diameter=size) for place, size in zip(places, sizes, strict=True))
    volume = Volume(data + rng.normal(0, 0.15, SHAPE), VOXEL)
    found = pick(volume, diameter=(120.0, 400.0), edge=150.0, threshold=1.0)
    agreement = picking.evaluate(found, particles.table(places), distance=60)
    assert agreement["f1"] == 1
    matched = agreement["matched"].sort_values("truth_id")
    assert matched["distance"].max() < VOXEL
    told = found.set_index("particle_id")["diameter"].loc[matched["pick_id"]].to_numpy()
    assert (np.diff(told) >= 0).all()
    # An isolated ball answers most to √3 times its diameter.
    np.testing.assert_allclose(told[:3], np.sqrt(3) * sizes[:3], rtol=0.12)


def test_a_range_finds_more_complexes_than_the_best_single_diameter() -> None:
    """Nine kinds of 125 to 340 Å; as many picks are looked at as there are particles."""
    names = [
        "ribosome_80s",
        "ribosome_50s",
        "tric",
        "apoferritin",
        "spliceosome",
        "atcase",
        "ruvab",
        "capsid_phix174",
        "mm_cpn_open",
    ]
    maps = densities.load(names, voxel_size=20.0, box=24)
    imaging = Imaging(snr=0.05, defocus=3.0)
    tomogram, truth = simulation.tomogram(maps, 5, shape=(48, 180, 180), imaging=imaging, seed=21, device="cpu")
    near = {
        tried: picking.evaluate(
            picking.choose(picking.candidates(tomogram, diameter=tried, edge=100.0), score=-np.inf)
            .head(len(truth))
            .assign(tomogram="simulated"),
            truth,
            distance=100.0,
        )["recall"]
        for tried in (150.0, 200.0, 250.0, 300.0, 350.0, (150.0, 350.0))
    }
    ours = near.pop((150.0, 350.0))
    assert ours > 0.7
    assert ours > max(near.values()) + 0.05


@pytest.mark.parametrize("diameter", [250.0, (180.0, 330.0)])
def test_tiles_find_what_the_whole_finds(noisy: Volume, diameter: float | tuple[float, float]) -> None:
    whole = picking.candidates(noisy, diameter=diameter)
    tiled = picking.candidates(noisy, diameter=diameter, largest=150_000)
    assert len(tiled) == len(whole) > 100
    np.testing.assert_allclose(tiled[["z", "y", "x"]], whole[["z", "y", "x"]], atol=0.05)
    np.testing.assert_allclose(tiled["score"], whole["score"], atol=1e-4)
    assert tiled["diameter"].tolist() == whole["diameter"].tolist()


def test_tiles_of_binned_voxels_find_what_the_whole_finds() -> None:
    data = balls(np.array([[203.0, 311.0, 402.0], [420.0, 207.0, 206.0]]), diameter=250, shape=(91, 71, 83), voxel_size=7.0)
    volume = Volume(data + np.random.default_rng(3).normal(0, 0.2, data.shape), 7.0)
    whole, tiled = (picking.candidates(volume, diameter=250.0, largest=size) for size in (2**26, 30_000))
    np.testing.assert_allclose(tiled[["z", "y", "x"]], whole[["z", "y", "x"]], atol=0.02)


def test_every_candidate_has_a_status(noisy: Volume, places: np.ndarray) -> None:
    left, low = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    left[:, :, :40], low[:30] = True, True
    found = picking.candidates(noisy, diameter=250, exclude={"carbon": left}, within=low)
    voxels = np.clip(np.round(particles.positions(found) / VOXEL).astype(int), 0, np.array(SHAPE) - 1)
    assert (found.loc[left[tuple(voxels.T)], "status"].isin(["carbon", "edge"])).all()
    assert set(found.loc[found["status"] == "outside"].index) <= set(np.flatnonzero(~low[tuple(voxels.T)]))
    picks = picking.choose(found, threshold=8)
    assert picks["x"].min() > 39 * VOXEL
    assert picks["z"].max() < 30 * VOXEL
    counts = picking.count_status(found, picks)
    assert counts["peaks"].sum() == len(found)
    assert counts.loc["picked"].tolist() == [len(picks)] * 2
    assert counts.loc["below the threshold", "as good as picks"] == 0
    # Each true ball is picked, unless a mask took it.
    _, nearest = KDTree(particles.positions(found)).query(places)
    away = low & ~left
    inside = away[tuple(np.round(places / VOXEL).astype(int).T)]
    assert len(picks) == inside.sum()
    assert found["status"].iloc[nearest[inside]].eq("free").all()
    assert found["status"].iloc[nearest[~inside]].isin(["carbon", "outside"]).all()


def test_choosing_again_is_picking_again(noisy: Volume) -> None:
    found = picking.candidates(noisy, diameter=250)
    for threshold in (0.0, 6.0, 14.0):
        direct = pick(noisy, diameter=250, threshold=threshold)
        pd.testing.assert_frame_equal(picking.choose(found, threshold=threshold), direct)
    scored = picking.choose(found, score=5.0)
    assert scored["score"].min() >= 5
    assert "status" not in scored
    with pytest.raises(ValueError, match="there is no status"):
        picking.choose(scored)


def test_evaluate_matches_one_to_one() -> None:
    truth = particles.table([[0, 0, 0], [0, 0, 100], [0, 0, 500]], ids=[10, 11, 12])
    picks = particles.table([[0, 0, 10], [0, 0, 20], [0, 0, 90], [0, 0, 900]], ids=[5, 6, 7, 8])
    agreement = picking.evaluate(picks, truth, distance=50)
    assert agreement["precision"] == pytest.approx(2 / 4)
    assert agreement["recall"] == pytest.approx(2 / 3)
    assert agreement["f1"] == pytest.approx(4 / 7)
    assert agreement["matched"][["pick_id", "truth_id"]].to_numpy().tolist() == [[5, 10], [7, 11]]
    assert agreement["matched"]["distance"].tolist() == [10, 10]


def test_score_keeps_tomograms_apart() -> None:
    truth = particles.table([[0, 0, 0]], tomogram="A")
    picks = particles.table([[0, 0, 0]], tomogram="B")
    assert picking.evaluate(picks, truth, distance=50)["recall"] == 0
    both = pd.concat([picks, particles.table([[0, 0, 0]], tomogram="A", ids=[3])])
    assert picking.evaluate(both, truth, distance=50)["matched"]["pick_id"].tolist() == [3]


def test_score_without_picks_or_truth() -> None:
    truth, none = particles.table([[0, 0, 0]]), particles.table(np.empty((0, 3)))
    assert picking.evaluate(none, truth, distance=50)["f1"] == 0
    with pytest.raises(ValueError, match="no true particles"):
        picking.evaluate(truth, none, distance=50)
    with pytest.raises(ValueError, match="distance must be a positive number"):
        picking.evaluate(truth, truth, distance=0)
