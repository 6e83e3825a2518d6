"""A trial gives full marks to features that hold the truth, and chance to features that hold nothing."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from tomolab import simulation, trials
from tomolab.learning import Embedding, networks
from tomolab.simulation import Imaging
from tomolab.subtomograms import Subtomograms
from tomolab.trials import STANDARD, Condition, Method, Ready
from tomolab.volumes import Volume

NAMES = ("whole", "lower", "upper", "left", "right")


@pytest.fixture(scope="module")
def maps(phantom: Volume) -> dict[str, Volume]:
    """Five shapes: the phantom, and halves of it."""
    n = phantom.shape[0] // 2
    cuts = (slice(None), np.s_[n:], np.s_[:n], np.s_[:, n:], np.s_[:, :n])
    out = {}
    for name, cut in zip(NAMES, cuts, strict=True):
        data = np.zeros_like(phantom.data)
        data[cut] = phantom.data[cut]
        out[name] = Volume(data, phantom.voxel_size)
    return out


def split(maps: dict[str, Volume]) -> tuple[dict[str, Volume], dict[str, Volume]]:
    return {name: maps[name] for name in NAMES[:3]}, {name: maps[name] for name in NAMES[3:]}


def told(noise: float) -> Ready:
    """A method that is told the class, as a direction of its own, with noise."""
    rng = np.random.default_rng(0)

    class Oracle(Ready):
        def embed(self, *sets: Subtomograms) -> list[Embedding]:
            return list(self.each(sets))

        def each(self, sets: tuple[Subtomograms, ...]) -> Iterator[Embedding]:
            for one in sets:
                kinds = [NAMES.index(label) for label in one.particles["label"]]
                vectors = (noise < 1) * np.eye(8)[kinds] + noise * rng.normal(size=(len(kinds), 8))
                yield Embedding(one.particles["particle_id"].to_numpy(), vectors, "oracle")

    return Oracle(method=Method(baseline="invariants"))


def test_features_that_hold_the_truth_get_full_marks(maps: dict[str, Volume]) -> None:
    marks = trials.judge(told(0.03), *split(maps), condition=Condition(snr=1.0, tilt=60), box=12, seed=1)
    assert {name: value for name, value in marks.items() if name not in ("ari_twice",)} == pytest.approx(
        dict.fromkeys(set(marks) - {"ari_twice"}, 1.0), abs=0.02
    )
    assert marks["ari_twice"] < 0.9


def test_features_that_hold_nothing_get_chance(maps: dict[str, Volume]) -> None:
    marks = trials.judge(told(1.0), *split(maps), condition=Condition(snr=1.0, tilt=60), box=12, seed=1)
    assert marks["accuracy"] < 0.55
    assert abs(marks["ari"]) < 0.1
    assert 0.35 < marks["novelty"] < 0.65


def test_a_network_learns_from_as_much_as_it_is_given(maps: dict[str, Volume]) -> None:
    known, unknown = split(maps)
    method = Method(network="compact", imaging=Imaging(snr=1.0, defocus=None), batch_size=8)
    assert trials.speed(method, known, box=12) > 1
    ready = trials.prepare(method, known, box=12, seen=1000, seed=1)
    assert abs(ready.seen - 1000) < 32
    assert ready.network is not None
    assert ready.network.classes == NAMES[:3]
    marks = trials.judge(ready, known, unknown, condition=Condition(snr=1.0, tilt=60), box=12, seed=2)
    assert marks["accuracy"] > 0.5


def test_classes_are_named_by_the_head_of_the_network(maps: dict[str, Volume]) -> None:
    known, _ = split(maps)
    network = networks.create("compact", box=12, classes=list(known))
    some = simulation.subtomograms(known, 5, imaging=STANDARD.imaging, box=12, seed=0)
    ready = Ready(method=Method(network="compact"), network=network.eval())
    (found,) = ready.embed(some)
    named = ready.classify(found, pd.Series(dtype=str), found)
    assert named.index.tolist() == found.ids.tolist()
    assert set(named) <= set(known)


def test_a_baseline_describes_all_sets_at_once(maps: dict[str, Volume]) -> None:
    known, _ = split(maps)
    first, second = (simulation.subtomograms(known, 4, imaging=STANDARD.imaging, box=12, seed=seed) for seed in (0, 1))
    ready = trials.prepare(Method(baseline="invariants"), known, box=12, seen=0, seed=0)
    apart, other = ready.embed(first, second)
    same, again = ready.embed(first, first)
    assert (len(apart), len(other)) == (12, 12)
    assert apart.ids.tolist() == first.particles["particle_id"].tolist()
    assert np.allclose(same.vectors, again.vectors, atol=1e-5)
    assert not np.allclose(apart.vectors, other.vectors, atol=1e-2)


def test_what_is_no_method_is_refused() -> None:
    with pytest.raises(ValueError, match="a network or a baseline, got None and None"):
        Method()
    with pytest.raises(ValueError, match="unknown network 'resnet'"):
        Method(network="resnet")
    with pytest.raises(ValueError, match="unknown baseline 'moments'; there are invariants, invariants, masked, normalised"):
        Method(baseline="moments")
