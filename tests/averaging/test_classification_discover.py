"""Discovery: from labels that mix and cut classes come the classes; what is one stays one."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from tomolab import averaging, simulation
from tomolab.jobs import Progress
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms

NAMES = ["tric", "ruvab"]


@pytest.fixture(scope="module")
def mixed() -> Subtomograms:
    """Twenty-four subtomograms of each of two complexes."""
    maps = densities.load(NAMES, voxel_size=20.0, box=20)
    imaging = Imaging(snr=0.3, tilts=(-60.0, 60.0), shift=0.05)
    return simulation.subtomograms(maps, 24, imaging=imaging, box=20, seed=3, device="cpu")


@pytest.fixture(scope="module")
def truth(mixed: Subtomograms) -> pd.Series:
    return mixed.particles.set_index("particle_id")["label"]


def rough(truth: pd.Series) -> pd.Series:
    """Two labels for the first class and one for the second; a fifth of all is wrong."""
    generator = np.random.default_rng(4)
    labels = truth.map(NAMES.index) * 2
    labels = labels + (labels == 0) * generator.integers(2, size=len(truth))
    return labels.where(generator.uniform(size=len(truth)) > 0.2, generator.integers(3, size=len(truth)))


def discover(some: Subtomograms, labels: pd.Series, **options: Any) -> averaging.Discovery:
    settings: dict[str, Any] = {"seed": 1, "iterations": 6, "progress": False, "device": "cpu", "mask_diameter": 200.0}
    return averaging.discover(some, labels, **settings | options)


def test_labels_that_mix_and_cut_classes_become_the_classes(mixed: Subtomograms, truth: pd.Series) -> None:
    start = rough(truth)
    seen: list[Progress] = []
    watched: list[averaging.Discovery] = []
    found = discover(mixed, start, progress=seen.append, watch=watched.append)
    assert [len(one.history) for one in watched] == list(range(1, len(found.history) + 1))
    pd.testing.assert_series_equal(watched[-1].labels, found.labels)
    assert adjusted_rand_score(truth, start) < 0.6
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.9
    assert len(found.volumes) == found.labels.nunique() == found.history["structures"].iloc[-1] == 2
    assert found.labels.name == "class"
    counts = np.bincount(found.labels)
    assert counts.tolist() == sorted(counts, reverse=True)
    assert found.probability.between(0.5, 1).all()
    assert [now.stage for now in seen[:3]] == ["structure 1", "structure 2", "structure 3"]
    assert [now.iteration for now in seen] == list(range(1, len(seen) + 1))


def test_one_label_of_two_classes_is_divided_and_the_same_seed_finds_the_same(mixed: Subtomograms, truth: pd.Series) -> None:
    one, two = (discover(mixed, truth.map(lambda _: 7), iterations=3) for _ in range(2))
    assert one.history["divided"].sum() == 1
    assert adjusted_rand_score(truth[one.labels.index], one.labels) > 0.8
    pd.testing.assert_series_equal(one.probability, two.probability)
    pd.testing.assert_frame_equal(one.history, two.history)


def test_one_complex_in_two_labels_is_one_structure(mixed: Subtomograms, truth: pd.Series) -> None:
    ids = truth.index[truth == "tric"]
    found = discover(mixed, pd.Series(np.arange(len(ids)) % 2, index=ids))
    assert len(found.volumes) == found.labels.nunique() == 1
    assert found.labels.index.tolist() == ids.tolist()


def test_particles_whose_structures_are_all_lost_find_another(mixed: Subtomograms, truth: pd.Series) -> None:
    """Six labels of eight: most structures lose their particles at once, among them all candidates of some particles."""
    found = discover(mixed, pd.Series(np.arange(len(truth)) % 6, index=truth.index), seed=3, iterations=2)
    assert found.probability.between(0.5, 1).all()
    assert np.isfinite(found.history["score"]).all()
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.8


def test_features_tell_apart_what_noise_hides(truth: pd.Series, mixed: Subtomograms) -> None:
    """Boxes of pure noise: no structure tells two classes apart, and the features do."""
    generator = np.random.default_rng(1)
    noise = generator.standard_normal(mixed.volumes.shape).astype(np.float32)
    boxes = Subtomograms(noise, mixed.particles, mixed.voxel_size)
    features = np.eye(2)[truth.map(NAMES.index)] + 0.2 * generator.standard_normal((len(truth), 2))
    plain, helped = (discover(boxes, truth.map(NAMES.index), features=one, iterations=1) for one in (None, features))
    agreement = [adjusted_rand_score(truth[one.labels.index], one.labels) for one in (plain, helped)]
    assert agreement[1] > agreement[0] + 0.3


def test_a_stop_gives_what_there_is(mixed: Subtomograms, truth: pd.Series) -> None:
    seen: list[Progress] = []
    found = discover(mixed, rough(truth), progress=seen.append, stop=lambda: len(seen) == 2)
    assert len(seen) == 2
    assert len(found.history) == 0
    assert 1 <= len(found.volumes) <= 2
    assert found.labels.index.tolist() == truth.index.tolist()


def test_bad_labels_and_features_are_refused(mixed: Subtomograms, truth: pd.Series) -> None:
    start = rough(truth)
    with pytest.raises(ValueError, match="8 particles or more is needed, the largest has 5"):
        discover(mixed, (start * 0)[:5])
    with pytest.raises(ValueError, match="the largest has 0"):
        discover(mixed, start * 0 - 1)
    with pytest.raises(ValueError, match="48 of 48 particle ids are not in this table"):
        discover(mixed, start.set_axis(start.index + 1000))
    with pytest.raises(ValueError, match=r"one finite row for each of 48 labels, got shape \(47, 4\)"):
        discover(mixed, start, features=np.zeros((47, 4)))
    with pytest.raises(ValueError, match="finite"):
        discover(mixed, start, features=np.full((48, 4), np.nan))
    with pytest.raises(ValueError, match=r"labels must be integers.*pandas.factorize"):
        discover(mixed, truth)
    with pytest.raises(ValueError, match=r"none of them missing, got float64"):
        discover(mixed, start.where(start > 0))
    with pytest.raises(ValueError, match="iterations must be 0 or more, got -1"):
        discover(mixed, start, iterations=-1)
    damaged = np.array(mixed.volumes)
    damaged[3, 5, 5, 5] = np.nan
    with pytest.raises(ValueError, match=rf"boxes of particles \[{mixed.ids[3]}\] hold values that are NaN"):
        discover(Subtomograms(damaged, mixed.particles, mixed.voxel_size), start)
