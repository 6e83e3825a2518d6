"""Refinement: one set from random orientations; a subset searches first when there are many; folds stay apart."""

import pytest
import torch

from tomolab import fourier, rotations, volumes
from tomolab.averaging import coefficients, refinement
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.refinement import Refinement, Settings
from tomolab.volumes import Volume

SETTINGS = Settings(4, 8, 14, 1.5, starts=1, search_iterations=9, local_iterations=3)


@pytest.fixture(scope="module")
def small(phantom: Volume) -> torch.Tensor:
    return torch.from_numpy(volumes.fit(volumes.resample(phantom, 20.0), 20).data)


@pytest.fixture(scope="module")
def data(small: torch.Tensor) -> Coefficients:
    """60 subtomograms with a wedge and noise."""
    generator = torch.Generator().manual_seed(0)
    clean = volumes.transform(
        fourier.resize(small, (40,) * 3).expand(60, -1, -1, -1), rotations.random(60, generator), box=20, step=2.0
    )
    noisy = clean + 1.5 * clean.std() * torch.randn(clean.shape, generator=generator)
    low = torch.full((60,), -60.0)
    return coefficients.transform(volumes.normalise(noisy), low, -low, radius_cycles=8)


def run(data: Coefficients, settings: Settings, seed: int = 0) -> list[refinement.Iteration]:
    return list(Refinement(data, settings, generator=torch.Generator().manual_seed(seed)))


def test_steps_and_stages(data: Coefficients) -> None:
    settings = Settings(4, 5, 14, 1.5, starts=2, search_iterations=2, local_iterations=1)
    states = run(data.take(torch.arange(8)), settings)
    assert [state.stage for state in states] == ["search"] * 4 + ["refine"]
    assert len(states) == settings.iterations
    assert states[-1].poses.rotations.shape == (8, 3, 3, 3)
    rotations.check(states[-1].poses.rotations.flatten(0, 1).double().numpy())
    assert float(states[-1].poses.shifts.norm(dim=-1).max()) < 4


def test_scores_and_resolution_grow_from_nothing(data: Coefficients) -> None:
    states = run(data, SETTINGS)
    assert states[-1].score > 1.5 * states[0].score
    assert states[-1].reference.resolved_cycles > states[0].reference.resolved_cycles
    weights = states[-1].poses.weights
    torch.testing.assert_close(weights.sum(1), torch.ones(60))


def test_few_search_then_all_join(data: Coefficients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "SUBSET", 40)
    states = run(data, SETTINGS)
    assert [len(state.rows) for state in states] == [40] * 9 + [60] * 3
    assert sorted(states[0].rows.tolist()) != list(range(40))
    everyone, alone = states[-1].score, states[8].score
    assert everyone > 0.8 * alone


def test_noise_scores_nothing(data: Coefficients) -> None:
    noise = (
        torch.randn(data.values.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
        * data.wedges[data.wedge_index]
    )
    states = run(Coefficients(noise, data.points, data.wedges, data.wedge_index, data.box), SETTINGS)
    # A subtomogram never meets its own noise in the reference: best of thousands, but no runaway.
    assert states[-1].score < 0.5 * run(data, SETTINGS)[-1].score
