"""Matches: particles of a structure are told from others and from its mirror image; an average from a known map turned away."""

import numpy as np
import pandas as pd
import pytest
from conftest import blob, imaged

from tomolab import averaging, rotations, subtomograms, volumes
from tomolab.averaging import Average, alignment, initial_model, matching
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

TURN = rotations.from_euler(np.array([[30.0, 70.0, -50.0]]))[0]


@pytest.fixture(scope="module")
def mixed(small: Volume) -> Subtomograms:
    """Forty boxes of the phantom, and forty of a ball of its size."""
    ball = Volume(blob(20, (0, 0, 0), 2.5).astype(np.float32), 20.0)
    parts = [imaged(one, 40, snr=0.3, seed=seed)[0] for seed, one in enumerate((small, ball), 7)]
    parts[1] = Subtomograms(parts[1].volumes, parts[1].particles.assign(particle_id=np.arange(40) + 500), 20.0)
    return subtomograms.join(parts)


@pytest.fixture(scope="module")
def average(small: Volume) -> Average:
    boxes = imaged(small, 80, snr=0.3, seed=0)[0]
    return averaging.average(boxes, seed=1, progress=False, device="cpu")


def test_an_average_finds_its_own_kind(mixed: Subtomograms, average: Average) -> None:
    found = matching.score(mixed, average, progress=False, device="cpu")
    assert list(found.index) == list(mixed.ids)
    right, other = found.loc[:499, "match"].to_numpy(), found.loc[500:, "match"].to_numpy()
    assert (right[:, None] > other[None]).mean() > 0.97
    # The mirror image tells what fits by chance: as often as the structure among the balls, less among its own.
    own = found.loc[:499]
    assert (own["match"] > own["mirrored"]).mean() > 0.85
    assert abs((found.loc[500:, "match"] > found.loc[500:, "mirrored"]).mean() - 0.5) < 0.3
    likely = matching.select(found)
    assert (likely < 500).sum() >= 30
    assert (likely >= 500).mean() < 0.2


def test_a_map_from_elsewhere_tells_the_hand(mixed: Subtomograms, small: Volume) -> None:
    ids = mixed.ids[:40]
    scaled = Volume(100 * small.data + 3, small.voxel_size)
    found = matching.score(mixed, scaled, ids, resolution=45.0, mask_diameter=300.0, progress=False, device="cpu")
    mirrored = volumes.mirror(scaled)
    wrong = matching.score(mixed, mirrored, ids, resolution=45.0, mask_diameter=300.0, progress=False, device="cpu")
    assert (found["match"] > found["mirrored"]).mean() > 0.8
    assert (wrong["match"] < wrong["mirrored"]).mean() > 0.8


def test_a_first_structure_does_as_well(mixed: Subtomograms) -> None:
    first = initial_model.find(mixed, mixed.ids[:40], seed=1, starts=1, iterations=12, progress=False, device="cpu")
    found = matching.score(mixed, first, progress=False, device="cpu")["match"]
    assert (found.loc[:499].to_numpy()[:, None] > found.loc[500:].to_numpy()[None]).mean() > 0.9


def test_scores_of_parts_are_those_of_the_whole(mixed: Subtomograms, average: Average, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = matching.score(mixed, average, mixed.ids[:20], progress=False, device="cpu")
    monkeypatch.setattr(matching, "BATCH", 7)
    parts = matching.score(mixed, average, mixed.ids[:20], progress=False, device="cpu")
    pd.testing.assert_index_equal(whole.index, parts.index)
    assert np.corrcoef(whole["match"], parts["match"])[0, 1] > 0.95


def test_a_known_map_is_turned_onto_the_average(average: Average, small: Volume) -> None:
    away = alignment.apply(small, alignment.Fit(TURN, np.array([15.0, -10.0, 5.0]), 1.0))
    found = matching.compare(average, away)
    assert found.resolution < 60
    assert alignment.correlation(found.known, average.volume, radius_cycles=6) > 0.9
    assert found.fsc["fsc"].iloc[:6].mean() > found.fsc["mirrored"].iloc[:6].mean() + 0.02
    assert repr(found).startswith(f"Comparison(as it is: FSC 0.5 at {found.resolution:.0f} Å; its mirror image: at ")
    other = matching.compare(average, volumes.mirror(away))
    np.testing.assert_allclose(other.fsc["mirrored"].iloc[:6], found.fsc["fsc"].iloc[:6], atol=0.05)
    same = matching.compare(small, small, mask_diameter=300.0)
    assert same.resolution < 45


def test_likely_ones_are_those_beyond_chance() -> None:
    found = pd.DataFrame({"match": [9.0, 8.0, 7.0, 3.0, 2.0], "mirrored": [1.0, 2.5, 4.0, 3.5, 1.0]}, index=[5, 3, 8, 1, 2])
    assert list(matching.select(found, share=0.4)) == [5, 3, 8]
    assert list(matching.select(found, share=0.5)) == [5, 3, 8, 1]
    with pytest.raises(ValueError, match="between 0 and 1"):
        matching.select(found, share=75)
    assert len(matching.select(found.iloc[:0])) == 0


def test_what_cannot_be_scored_is_refused(mixed: Subtomograms, small: Volume) -> None:
    with pytest.raises(ValueError, match="a constant map"):
        matching.score(mixed, Volume(np.ones((20, 20, 20)), 20.0))
    with pytest.raises(ValueError, match="resolution must lie within 40 to 100 Å"):
        matching.score(mixed, small, resolution=20.0)
    with pytest.raises(ValueError, match="constant map"):
        matching.compare(small, Volume(np.ones((20, 20, 20)), 20.0))


def test_a_mirror_image_keeps_the_centre() -> None:
    for box in (7, 8):
        data = np.random.default_rng(0).normal(size=(box,) * 3).astype(np.float32)
        once = volumes.mirror(Volume(data, 10.0))
        centre = box // 2
        np.testing.assert_array_equal(once.data[:, :, centre], data[:, :, centre])
        np.testing.assert_array_equal(once.data[:, :, centre + 1], data[:, :, centre - 1])
        np.testing.assert_array_equal(volumes.mirror(once).data, data)
