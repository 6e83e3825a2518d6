"""Classification: strangers in a set are in a class of their own, also in a chosen part, and a stop gives what there is."""

from pathlib import Path

import numpy as np
import pytest

from tomolab import averaging, simulation, subtomograms
from tomolab.jobs import Progress
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms

IMAGING = Imaging(snr=0.2, tilts=(-60.0, 60.0), shift=0.05)


@pytest.fixture(scope="module")
def mixed() -> Subtomograms:
    """Forty of one complex, and ten of another that is about as large."""
    maps = densities.load(["tric", "ruvab"], voxel_size=20.0, box=20)
    return simulation.subtomograms(maps, {"tric": 40, "ruvab": 10}, imaging=IMAGING, box=20, seed=3, device="cpu")


def test_strangers_are_named(mixed: Subtomograms) -> None:
    truth = mixed.particles.set_index("particle_id")["label"]
    found = averaging.classify(mixed, seed=1, iterations=3, progress=False, device="cpu")
    assert found.labels.name == "class"
    assert found.labels.index.tolist() == truth.index.tolist()
    assert found.labels[truth == "ruvab"].mean() > 0.85
    assert found.labels[truth == "tric"].mean() < 0.1
    assert found.probability.between(0.5, 1).all()
    assert len(found.volumes) == 2
    # The largest class comes first, and a chosen part is divided like a whole.
    some = averaging.classify(
        mixed, truth.index[truth == "ruvab"].append(truth.index[truth == "tric"][:8]), seed=1, iterations=2, progress=False
    )
    assert some.labels.value_counts().index[0] == 0


def test_the_same_seed_classifies_alike_from_a_store(mixed: Subtomograms, tmp_path: Path) -> None:
    few = mixed.take(mixed.ids[::2])
    few.save(tmp_path / "few.zarr")
    stored = subtomograms.open(tmp_path / "few.zarr")
    here = Subtomograms(np.asarray(stored.volumes[:], dtype=np.float32), few.particles, 20.0)
    one, two = (averaging.classify(data, seed=2, iterations=1, progress=False, device="cpu") for data in (here, stored))
    np.testing.assert_array_equal(one.labels, two.labels)


def test_progress_is_told_and_a_stop_gives_what_there_is(mixed: Subtomograms) -> None:
    few, seen = mixed.take(mixed.ids[-24:]), list[Progress]()
    averaging.classify(few, seed=2, iterations=2, progress=seen.append, device="cpu")
    assert [now.iteration for now in seen] == list(range(1, seen[0].of + 1))
    assert list(dict.fromkeys(now.stage for now in seen)) == ["structure 1", "structure 2", "classification"]
    assert seen[-1].left == 0
    for moment, classes in ((1, 1), (2, 2), (3, 2)):
        told: list[Progress] = []
        options = {"progress": told.append, "stop": lambda told=told, moment=moment: len(told) == moment}
        stopped = averaging.classify(few, seed=2, iterations=2, device="cpu", **options)
        assert len(told) == moment
        assert len(stopped.volumes) == classes
        assert stopped.labels.index.tolist() == few.ids.tolist()


def test_bad_input_is_refused(mixed: Subtomograms) -> None:
    with pytest.raises(ValueError, match="2 classes or more with 8 particles each, got 1 for 50"):
        averaging.classify(mixed, seed=1, classes=1)
    with pytest.raises(ValueError, match="got 2 for 10 particles"):
        averaging.classify(mixed, mixed.ids[:10], seed=1)
    with pytest.raises(ValueError, match="max_shift must be over 0"):
        averaging.classify(mixed, seed=1, max_shift=-5.0)
