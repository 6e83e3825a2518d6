"""Validation of clusters: the average of a particle predicts others of its kind, and that of a ball predicts nothing."""

import numpy as np
import pytest
from conftest import blob, imaged

from tomolab import averaging, subtomograms
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

OPTIONS = {"seed": 1, "starts": 1, "search_iterations": 12, "iterations": 10, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def mixed(small: Volume) -> Subtomograms:
    """Eighty boxes of the phantom, and eighty of a ball of its size."""
    ball = Volume(blob(20, (0, 0, 0), 2.5).astype(np.float32), 20.0)
    parts = [imaged(one, 80, snr=0.3, seed=seed)[0] for seed, one in enumerate((small, ball), 7)]
    parts[1] = Subtomograms(parts[1].volumes, parts[1].particles.assign(particle_id=np.arange(80) + 500), 20.0)
    return subtomograms.join(parts)


# A ball has no orientation, so its halves may agree on nothing.
@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")
def test_a_particle_predicts_its_kind_and_a_ball_nothing(mixed: Subtomograms) -> None:
    particles, balls = mixed.ids[:80], mixed.ids[80:]
    apart = np.concatenate([particles[50:], balls[50:]])
    found = averaging.validate_cluster(mixed, particles[:40], apart=apart, **OPTIONS)
    assert len(found.predicted) >= 15
    assert (found.predicted < 500).mean() > 0.9
    assert set(found.predicted) <= set(apart)
    assert not set(found.average.particles["particle_id"]) & set(apart)
    assert f"predicts {len(found.predicted)} of 60" in repr(found)
    nothing = averaging.validate_cluster(mixed, balls[:40], apart=apart, among=balls, **OPTIONS)
    assert len(nothing.predicted) < 5


def test_those_set_apart_must_be_others(mixed: Subtomograms) -> None:
    with pytest.raises(ValueError, match="10 particles, such as"):
        averaging.validate_cluster(mixed, mixed.ids[:40], apart=mixed.ids[30:60], **OPTIONS)
    with pytest.raises(ValueError, match="9999"):
        averaging.validate_cluster(mixed, mixed.ids[:40], apart=[9999], **OPTIONS)
