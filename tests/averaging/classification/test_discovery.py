"""Discovery: from labels that mix and cut classes come the classes; what is one stays one."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from tomolab import averaging
from tomolab.jobs import Progress
from tomolab.subtomograms import Subtomograms

NAMES = ["tric", "ruvab"]


@pytest.fixture(scope="module")
def truth(mixed: Subtomograms) -> pd.Series:
    return mixed.particles.set_index("particle_id")["label"]


def discover(some: Subtomograms, labels: pd.Series, **options: Any) -> averaging.Discovery:
    settings: dict[str, Any] = {"seed": 1, "iterations": 6, "progress": False, "device": "cpu", "mask_diameter": 200.0}
    return averaging.discover(some, labels, **settings | options)


def test_labels_that_mix_and_cut_classes_become_the_classes(mixed: Subtomograms, truth: pd.Series, rough: pd.Series) -> None:
    seen: list[Progress] = []
    watched: list[averaging.Discovery] = []
    found = discover(mixed, rough, progress=seen.append, watch=watched.append)
    assert [len(one.history) for one in watched] == list(range(1, len(found.history) + 1))
    pd.testing.assert_series_equal(watched[-1].labels, found.labels)
    assert adjusted_rand_score(truth, rough) < 0.6
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.9
    assert len(found.volumes) == found.labels.nunique() == found.history["structures"].iloc[-1] == 2
    assert found.labels.name == "class"
    counts = np.bincount(found.labels)
    assert counts.tolist() == sorted(counts, reverse=True)
    assert found.probability.between(0.5, 1).all()
    assert [now.stage for now in seen[:3]] == ["structure 1", "structure 2", "structure 3"]
    assert [now.iteration for now in seen] == list(range(1, len(seen) + 1))


def test_one_label_of_two_classes_is_divided(mixed: Subtomograms, truth: pd.Series) -> None:
    found = discover(mixed, truth.map(lambda _: 7), iterations=3)
    assert found.history["divided"].sum() == 1
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.8


def test_one_complex_in_two_labels_is_one_structure(mixed: Subtomograms, truth: pd.Series) -> None:
    ids = truth.index[truth == "tric"]
    found = discover(mixed, pd.Series(np.arange(len(ids)) % 2, index=ids))
    assert len(found.volumes) == found.labels.nunique() == 1
    assert found.labels.index.tolist() == ids.tolist()


def test_particles_whose_structures_are_all_lost_find_another(mixed: Subtomograms, truth: pd.Series) -> None:
    """Six labels of eight: most structures lose their particles at once, among them all candidates of some particles."""
    found = discover(mixed, pd.Series(np.arange(len(truth)) % 6, index=truth.index), seed=3, iterations=3)
    assert found.probability.between(0.5, 1).all()
    assert np.isfinite(found.history["score"]).all()
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.8


def test_features_make_certain_what_noise_leaves_open(mixed: Subtomograms, truth: pd.Series, rough: pd.Series) -> None:
    generator = np.random.default_rng(1)
    noise = generator.standard_normal(mixed.volumes.shape).astype(np.float32)
    boxes = Subtomograms(mixed.volumes + 9 * noise * mixed.volumes.std(), mixed.particles, mixed.voxel_size)
    features = np.eye(2)[truth.map(NAMES.index)] + 0.2 * generator.standard_normal((len(truth), 2))
    plain, helped = (discover(boxes, rough, features=one, iterations=2) for one in (None, features))
    assert helped.probability.mean() > plain.probability.mean() + 0.02
    known = helped.labels[helped.labels >= 0]
    # Noisy particles among which is no pure noise stay.
    assert len(known) > 0.85 * len(truth)
    assert adjusted_rand_score(truth[known.index], known) > 0.9


def test_pure_noise_is_in_no_class(mixed: Subtomograms, truth: pd.Series) -> None:
    noise = np.random.default_rng(1).standard_normal(mixed.volumes.shape).astype(np.float32)
    boxes = Subtomograms(noise, mixed.particles, mixed.voxel_size)
    found = discover(boxes, truth.map(NAMES.index))
    assert (found.labels == -1).mean() > 0.7
    assert found.labels.nunique() - 1 == len(found.volumes) <= 1
    assert found.history["unassigned"].iloc[-1] == (found.labels == -1).sum()


def test_noise_among_particles_is_in_no_class(mixed: Subtomograms, truth: pd.Series, rough: pd.Series) -> None:
    empty = truth.index[::6]
    volumes = np.array(mixed.volumes)
    volumes[::6] = np.random.default_rng(2).standard_normal(volumes[::6].shape) * volumes.std()
    found = discover(Subtomograms(volumes, mixed.particles, mixed.voxel_size), rough)
    known = truth.drop(empty)
    assert (found.labels[empty] == -1).all()
    assert (found.labels[known.index] >= 0).mean() > 0.9
    assert adjusted_rand_score(known, found.labels[known.index]) > 0.8
    assert len(found.volumes) == 2


def test_a_killed_discovery_goes_on_with_the_same_result(mixed: Subtomograms, tmp_path: Path, rough: pd.Series) -> None:
    file = tmp_path / "discovery.safetensors"
    whole = discover(mixed, rough, iterations=4)

    def killed(found: averaging.Discovery) -> None:
        # The first iteration writes the file; those of the next seconds do not.
        if len(found.history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover(mixed, rough, iterations=4, checkpoint=file, watch=killed)
    assert file.exists()
    with pytest.raises(ValueError, match="of a call begun otherwise"):
        discover(mixed, rough, seed=2, iterations=4, checkpoint=file)
    seen: list[Progress] = []
    again = discover(mixed, rough, iterations=4, checkpoint=file, progress=seen.append)
    assert "structures" in seen[0].stage
    pd.testing.assert_series_equal(again.probability, whole.probability)
    pd.testing.assert_frame_equal(again.history, whole.history)
    for one, other in zip(again.volumes, whole.volumes, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
    assert not file.exists()


def test_structures_of_some_particles_classify_all(mixed: Subtomograms, truth: pd.Series, rough: pd.Series) -> None:
    found = discover(mixed, rough, max_particles=32)
    assert found.labels.index.tolist() == truth.index.tolist()
    assert adjusted_rand_score(truth[found.labels.index], found.labels) > 0.8
    assert len(found.volumes) == 2
    seen: list[Progress] = []
    stopped = discover(mixed, rough, max_particles=32, progress=seen.append, stop=lambda: len(seen) == 5)
    assert (stopped.reason == "was not compared with the structures, because the discovery was stopped").sum() == len(
        truth
    ) - 32
    assert (stopped.labels >= 0).sum() == 32 - stopped.history["unassigned"].iloc[-1]


def test_rare_labels_take_part_whole_where_only_some_particles_do(mixed: Subtomograms, truth: pd.Series) -> None:
    labels = pd.Series(np.where(np.arange(len(truth)) < 9, 0, 1), index=truth.index)
    seen: list[Progress] = []
    found = discover(mixed, labels, max_particles=18, progress=seen.append, stop=lambda: len(seen) == 3)
    assert not found.reason.index.isin(labels.index[labels == 0]).any()
    assert len(found.reason) == len(truth) - 18


def test_structures_of_too_few_particles_are_given_up(mixed: Subtomograms, truth: pd.Series) -> None:
    few = truth.index[truth == "ruvab"][:10]
    ids = truth.index[truth == "tric"].append(few)
    labels = pd.Series(ids.isin(few).astype(int), index=ids)
    two, one = (discover(mixed, labels, min_particles=fewest, iterations=8) for fewest in (8, 16))
    assert (len(two.volumes), len(one.volumes)) == (2, 1)


def test_a_stop_gives_what_there_is(mixed: Subtomograms, truth: pd.Series, rough: pd.Series) -> None:
    seen: list[Progress] = []
    found = discover(mixed, rough, progress=seen.append, stop=lambda: len(seen) == 2)
    assert len(seen) == 2
    assert len(found.history) == 0
    assert 1 <= len(found.volumes) <= 2
    assert found.labels.index.tolist() == truth.index.tolist()


def test_bad_labels_and_features_are_refused(mixed: Subtomograms, truth: pd.Series, rough: pd.Series) -> None:
    with pytest.raises(ValueError, match="8 particles or more is needed, the largest has 5"):
        discover(mixed, (rough * 0)[:5])
    with pytest.raises(ValueError, match="the largest has 0"):
        discover(mixed, rough * 0 - 1)
    with pytest.raises(ValueError, match="48 of 48 particle ids are not in this table"):
        discover(mixed, rough.set_axis(rough.index + 1000))
    with pytest.raises(ValueError, match=r"one finite row for each of 48 labels, got shape \(47, 4\)"):
        discover(mixed, rough, features=np.zeros((47, 4)))
    with pytest.raises(ValueError, match="finite"):
        discover(mixed, rough, features=np.full((48, 4), np.nan))
    with pytest.raises(ValueError, match=r"labels must be integers.*pandas.factorize"):
        discover(mixed, truth)
    with pytest.raises(ValueError, match=r"none of them missing, got float64"):
        discover(mixed, rough.where(rough > 0))
    with pytest.raises(ValueError, match="iterations must be 0 or more, got -1"):
        discover(mixed, rough, iterations=-1)
    with pytest.raises(ValueError, match="min_particles must be 8 or more, got 2"):
        discover(mixed, rough, min_particles=2)
    with pytest.raises(ValueError, match="max_particles must be 16 or more, got 9"):
        discover(mixed, rough, max_particles=9)
    damaged = np.array(mixed.volumes)
    damaged[3, 5, 5, 5] = np.nan
    with pytest.raises(ValueError, match=rf"boxes of particles \[{mixed.ids[3]}\] hold values that are NaN"):
        discover(Subtomograms(damaged, mixed.particles, mixed.voxel_size), rough)
