"""Harmonics: what is put in at a degree comes out there, and powers stay when a particle is turned."""

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from tomolab import fourier, rotations, volumes
from tomolab.learning import spherical_harmonics


def even(box: int, values) -> torch.Tensor:
    """What a function of frequency (zyx, in cycles per voxel) gives on the oversampled rfftn grid, as one row."""
    k = fourier.frequencies((box * spherical_harmonics.OVERSAMPLING,) * 3).double().numpy()
    return torch.from_numpy(values(k).astype(np.float32)).flatten()[None]


@pytest.mark.parametrize(("degree", "order"), [(0, 0), (2, 1), (4, 0), (6, 5)])
def test_one_harmonic_comes_out_at_its_degree(degree: int, order: int) -> None:
    plan = spherical_harmonics.plan_shells(24, degree=8)

    def harmonic(k: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(k, axis=-1)
        polar = np.arccos(np.divide(k[..., 0], length, out=np.zeros_like(length), where=length > 0))
        return sph_harm_y(degree, order, polar, np.arctan2(k[..., 1], k[..., 2])).real

    found = spherical_harmonics.coefficients(even(24, harmonic), plan)
    # The real part of Y_lm has half of its power, but for order 0 all; far out trilinear interpolation is exact enough.
    for row, degrees in zip(found[5:], plan.degrees[5:], strict=True):
        power = torch.zeros(9).index_add_(0, degrees, row[0] ** 2)
        assert power[degree] == pytest.approx(1 if order == 0 else 0.5, rel=0.06)
        assert power.sum() - power[degree] < 0.01 * power[degree]


def test_powers_are_sums_of_squares_of_each_degree() -> None:
    plan = spherical_harmonics.plan_shells(12, degree=4)
    rows = [torch.randn(3, len(degrees), generator=torch.Generator().manual_seed(0)) for degrees in plan.degrees]
    power = spherical_harmonics.power(rows, plan)
    expected = []
    for i, (first, degrees) in enumerate(zip(rows, plan.degrees, strict=True)):
        for second in rows[: i + 1]:
            inner = degrees[: second.shape[1]]
            expected += [(first[:, : len(inner)] * second)[:, inner == degree].sum(1) for degree in inner.unique()]
    torch.testing.assert_close(power, torch.stack(expected, dim=1))
    # Turning one sign on one shell leaves its own power and turns the products with the others.
    rows[-1] = -rows[-1]
    turned = spherical_harmonics.power(rows, plan)
    own = len(plan.degrees[-1].unique())
    torch.testing.assert_close(turned[:, -own:], power[:, -own:])
    assert not torch.allclose(turned, power)


def test_inner_shells_end_at_the_degree_that_they_can_hold() -> None:
    plan = spherical_harmonics.plan_shells(20, degree=8)
    assert [int(degrees.max()) for degrees in plan.degrees] == [2, 6, 8, 8, 8, 8, 8, 8, 8, 8]
    assert all((degrees % 2 == 0).all() for degrees in plan.degrees)


def test_plans_and_volumes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 10 shells up to Nyquist, got shells=11"):
        spherical_harmonics.plan_shells(20, degree=4, shells=11)
    with pytest.raises(ValueError, match=r"must be even .* got 5"):
        spherical_harmonics.plan_shells(20, degree=5)
    with pytest.raises(ValueError, match=r"volumes \(n, 12, 12, 12\), got \(2, 10, 10, 10\)"):
        spherical_harmonics.amplitudes(torch.zeros(2, 10, 10, 10), spherical_harmonics.plan_shells(12, degree=2))


def test_a_rotation_changes_coefficients_but_not_powers(phantom) -> None:
    plan = spherical_harmonics.plan_shells(32, degree=6, shells=8)
    source = torch.from_numpy(phantom.data)[None].expand(6, -1, -1, -1)
    turned = volumes.transform(source, rotations.random(6, torch.Generator().manual_seed(0)))
    found = spherical_harmonics.coefficients(spherical_harmonics.amplitudes(turned, plan), plan)
    power = spherical_harmonics.power(found, plan)
    assert ((power - power[0]).norm(dim=1) / power[0].norm()).max() < 0.03
    whole = torch.cat(found, dim=1)
    # What does not turn is the mean over each shell, most of the norm.
    varied = whole[:, torch.cat(plan.degrees) > 0]
    assert ((varied - varied[0]).norm(dim=1) / varied[0].norm())[1:].min() > 0.3
