"""Discovery: from labels that mix and cut classes come the classes; what is one stays one."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from tomolab import simulation
from tomolab.averaging import classification
from tomolab.jobs import Progress
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms

IMAGING = Imaging(snr=0.2, tilts=(-60.0, 60.0), shift=0.05)
NAMES = ["tric", "ruvab", "ribosome_30s"]


@pytest.fixture(scope="module")
def mixed() -> Subtomograms:
    """Thirty subtomograms of each of three complexes that differ little in size."""
    maps = densities.load(NAMES, voxel_size=20.0, box=20)
    return simulation.subtomograms(maps, 30, imaging=IMAGING, box=20, seed=3, device="cpu")


@pytest.fixture(scope="module")
def truth(mixed: Subtomograms) -> pd.Series:
    return mixed.particles.set_index("particle_id")["label"]


def rough(truth: pd.Series, *, wrong: float) -> pd.Series:
    """Two labels for each class, of which a share is wrong."""
    generator = np.random.default_rng(4)
    labels = truth.map(NAMES.index) * 2 + generator.integers(2, size=len(truth))
    swapped = generator.uniform(size=len(truth)) < wrong
    return labels.where(~swapped, generator.integers(6, size=len(truth)))


def test_labels_that_mix_and_cut_classes_become_the_classes(mixed: Subtomograms, truth: pd.Series) -> None:
    start = rough(truth, wrong=0.3)
    found = classification.discover(mixed, start, seed=1, iterations=9, progress=False, device="cpu")
    assert adjusted_rand_score(truth, start) < 0.45
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.9
    assert len(found.volumes) == found.labels.nunique() == 3
    assert found.labels.name == "class"
    assert np.bincount(found.labels).tolist() == sorted(np.bincount(found.labels), reverse=True)
    assert found.probability.between(1 / 3, 1).all()
    assert found.history["structures"].iloc[-1] == 3


def test_one_label_of_two_classes_is_divided(mixed: Subtomograms, truth: pd.Series) -> None:
    some = truth[truth != "ruvab"]
    found = classification.discover(mixed, some.map(lambda _: 0), seed=2, iterations=9, progress=False, device="cpu")
    assert found.history["divided"].sum() >= 1
    assert adjusted_rand_score(some[found.labels.index], found.labels) > 0.8


def test_one_complex_in_two_labels_is_one_structure(mixed: Subtomograms, truth: pd.Series) -> None:
    ids = truth.index[truth == "tric"]
    halves = pd.Series(np.arange(len(ids)) % 2, index=ids)
    found = classification.discover(mixed, halves, seed=1, iterations=9, progress=False, device="cpu")
    assert len(found.volumes) == found.labels.nunique() == 1


def test_features_count_beside_the_structures(mixed: Subtomograms, truth: pd.Series) -> None:
    """Features that tell what the structures cannot: where no structure is known, they decide."""
    generator = np.random.default_rng(1)
    features = np.eye(3)[truth.map(NAMES.index)] + 0.3 * generator.standard_normal((len(truth), 3))
    start = rough(truth, wrong=0.3)
    options = {"seed": 1, "iterations": 1, "progress": False, "device": "cpu"}
    plain, helped = (classification.discover(mixed, start, features=one, **options) for one in (None, features))
    agree = [adjusted_rand_score(truth[one.labels.index], one.labels) for one in (plain, helped)]
    assert agree[1] >= agree[0]
    assert not plain.probability.equals(helped.probability)


def test_the_same_seed_finds_the_same(mixed: Subtomograms, truth: pd.Series) -> None:
    start = rough(truth, wrong=0.2)[::2]
    one, two = (classification.discover(mixed, start, seed=5, iterations=3, progress=False, device="cpu") for _ in range(2))
    pd.testing.assert_series_equal(one.probability, two.probability)
    pd.testing.assert_frame_equal(one.history, two.history)


def test_progress_is_told_and_a_stop_gives_what_there_is(mixed: Subtomograms, truth: pd.Series) -> None:
    seen: list[Progress] = []
    start = rough(truth, wrong=0.2)
    options = {"progress": seen.append, "stop": lambda: len(seen) == 8, "device": "cpu"}
    found = classification.discover(mixed, start, seed=1, iterations=9, **options)
    assert [now.iteration for now in seen] == list(range(1, 9))
    assert [now.stage for now in seen[:6]] == [f"structure {number}" for number in range(1, 7)]
    assert len(found.history) == 2
    assert found.labels.index.tolist() == truth.index.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:7], "8 particles or more is needed, the largest has"),
        (lambda labels: labels * 0 - 1, "the largest has 0"),
        (lambda labels: labels.set_axis(labels.index + 1000), "unknown"),
    ],
)
def test_bad_labels_are_refused(mixed: Subtomograms, truth: pd.Series, change, message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        classification.discover(mixed, change(rough(truth, wrong=0.0)), seed=1)


def test_features_of_others_are_refused(mixed: Subtomograms, truth: pd.Series) -> None:
    start = rough(truth, wrong=0.0)
    with pytest.raises(ValueError, match=r"one finite row for each of 90 labels, got shape \(89, 4\)"):
        classification.discover(mixed, start, features=np.zeros((89, 4)), seed=1)
    with pytest.raises(ValueError, match="finite"):
        classification.discover(mixed, start, features=np.full((90, 4), np.nan), seed=1)
