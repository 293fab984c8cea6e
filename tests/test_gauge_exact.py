"""Characters of two-dimensional gauge theory against tables, closed forms, quadrature and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import ive

from lattices import exact
from lattices.loops import PLAQUETTE
from lattices.statistics import reweighted_mean
from lattices.theories.wilson import link_field, loop_sum
from lattices.wilson_loops import plaquette
from symmetries.lie import SUN

TORUS = [  # extents, n, β, log Z, plaquette
    ((8, 8), 1, 1.0, 15.0985189445, 0.446389965897),
    ((8, 8), 1, 2.0, 52.7355866551, 0.697774658011),
    ((8, 8), 1, 5.0, 211.5011030083, 0.893421249755),
    ((8, 8), 2, 2.0, 29.70460631, 0.433127427),
    ((8, 8), 2, 4.0, 101.44578679, 0.658047267),
    ((8, 8), 3, 3.0, 18.46809023, 0.203075050),
    ((8, 8), 3, 5.0, 54.21163555, 0.353954437),
    ((8, 8), 3, 6.0, 79.09696586, 0.422531740),
    ((4, 4), 3, 5.0, 13.55290901, 0.353954461),
    ((4, 4), 3, 6.0, 19.77424353, 0.422532057),
]
PLANE = [
    (2, 1.8, 0.3993723801),
    (2, 2.2, 0.4644790253),
    (3, 4.0, 0.2796191494),
    (3, 5.0, 0.3539544367),
    (3, 6.0, 0.4225317396),
]
CHARGE = [  # L, β, plaquette, <Q²>
    (4, 2.0, 0.699251926818, 0.2906361128),
    (8, 1.0, 0.44638997, 2.600719),
    (8, 2.0, 0.69777466, 1.239299),
    (16, 3.0, 0.80998529, 2.831565),
    (16, 5.0, 0.89338314, 1.473487),
    (16, 7.0, 0.92553221, 1.006414),
]


@pytest.mark.parametrize(("extents", "n", "beta", "log_z", "plaquette"), TORUS)
def test_torus(extents: tuple[int, int], n: int, beta: float, log_z: float, plaquette: float) -> None:
    assert exact.gauge_torus_log_z(extents, n, beta) == pytest.approx(log_z, abs=6e-9)
    assert exact.gauge_torus_plaquette(extents, n, beta) == pytest.approx(plaquette, abs=6e-10)


@pytest.mark.parametrize(("n", "beta", "plaquette"), PLANE)
def test_plane(n: int, beta: float, plaquette: float) -> None:
    assert exact.gauge_plane_plaquette(n, beta) == pytest.approx(plaquette, abs=1e-10)
    assert exact.gauge_torus_plaquette((40, 40), n, beta) == pytest.approx(plaquette, abs=1e-10)


@pytest.mark.parametrize(("length", "beta", "plaquette", "charge_squared"), CHARGE)
def test_charges(length: int, beta: float, plaquette: float, charge_squared: float) -> None:
    assert exact.gauge_torus_plaquette((length, length), 1, beta) == pytest.approx(plaquette, abs=6e-9)
    assert exact.u1_charge_squared((length, length), beta) == pytest.approx(charge_squared, abs=6e-7)


@pytest.mark.parametrize("beta", [0.5, 3.0, 50.0, 5000.0])
def test_characters_have_closed_forms(beta: float) -> None:
    charges = exact.character_expansion(1, beta)
    near = abs(charges.weights[:, 0]) < 4
    bessel = ive(abs(charges.weights[near, 0]), beta) / ive(0, beta)
    np.testing.assert_allclose(charges.ratios[near], bessel, rtol=1e-12)
    spins = exact.character_expansion(2, beta)
    m = spins.weights[:, 0] + 1
    np.testing.assert_array_equal(spins.dimensions, m)
    np.testing.assert_allclose(spins.ratios, ive(m, beta) / ive(1, beta), rtol=1e-9, atol=1e-11)
    assert exact.one_plaquette_log_z(2, beta) == pytest.approx(beta + math.log(2 * ive(1, beta) / beta), rel=1e-11)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_one_plaquette_is_an_integral_over_the_group(n: int) -> None:
    """⟨e^{(β/N) Re Tr g}⟩ and its derivative over random elements."""
    g = SUN(n).random(40_000, torch.Generator().manual_seed(1))
    trace = g.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    beta = 1.5
    weights = torch.exp(beta * trace - exact.one_plaquette_log_z(n, beta))
    for values, expected in ((weights, 1.0), (weights * trace, exact.gauge_plane_plaquette(n, beta))):
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - expected) < 4 * error < 0.03


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("extents", [(1, 2), (4, 4)])
def test_plaquette_is_the_derivative_of_log_z(n: int, extents: tuple[int, int]) -> None:
    beta, step = 2.5, 1e-4
    ends = [exact.gauge_torus_log_z(extents, n, beta + sign * step) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step * math.prod(extents))
    assert exact.gauge_torus_plaquette(extents, n, beta) == pytest.approx(slope, rel=1e-6)


def test_strong_and_weak_coupling() -> None:
    beta = 1e-3
    for n, slope in ((1, 1 / 2), (2, 1 / 4), (3, 1 / 18), (4, 1 / 32)):
        assert exact.gauge_plane_plaquette(n, beta) == pytest.approx(slope * beta, rel=1e-3)
        assert exact.gauge_torus_log_z((4, 4), n, 0.0) == 0
        dimension = max(n**2 - 1, 1)
        assert 1 - exact.gauge_plane_plaquette(n, 60.0) == pytest.approx(dimension / 120, rel=0.05)


def test_strong_coupling_forgets_the_dimension() -> None:
    """In d = 3, reweighted from Haar measure: cubes correct the plaquette of the plane at order β⁵."""
    field, beta = link_field((3, 3, 3), 1), 0.2
    x = field.random(20_000, torch.Generator().manual_seed(1))
    total, mean = loop_sum(field, x, PLAQUETTE), plaquette(field, x)
    estimate = reweighted_mean(mean, beta * total)
    assert estimate.error < 0.05 * estimate.value
    assert abs(estimate.z_score(exact.gauge_plane_plaquette(1, beta))) < 4
    assert abs(estimate.z_score(exact.gauge_plane_plaquette(1, 1.5 * beta))) > 4


@pytest.mark.parametrize("n", [1, 2, 3])
def test_wilson_loops(n: int) -> None:
    loops = [exact.gauge_torus_wilson_loop((4, 4), n, 3.0, area) for area in range(17)]
    assert loops[0] == pytest.approx(1)
    plane = exact.gauge_plane_plaquette(n, 3.0)
    assert loops[2] == pytest.approx(plane**2, rel=0.05)
    assert exact.gauge_torus_wilson_loop((30, 30), n, 3.0, 7) == pytest.approx(plane**7, rel=1e-9)
    if n == 1:
        assert loops == pytest.approx(loops[::-1])
    assert exact.gauge_torus_wilson_loop((4, 4), n, 0.0, 1) == 0


def test_four_plaquettes_by_brute_force() -> None:
    """P(Q) of the 2 × 2 torus: three independent angles on a midpoint grid, the fourth closes the torus."""
    beta, n = 1.3, 160
    angle = (np.arange(n) + 0.5) * 2 * np.pi / n - np.pi
    total = angle[:, None, None] + angle[:, None] + angle
    charge = np.rint(total / (2 * np.pi))
    weight = np.exp(beta * (np.cos(angle)[:, None, None] + np.cos(angle)[:, None] + np.cos(angle) + np.cos(total)))
    distribution = exact.u1_charge_distribution((2, 2), beta)
    for q in (-1, 0, 1):
        assert distribution[q] == pytest.approx(weight[charge == q].sum() / weight.sum(), abs=2e-4)


@pytest.mark.parametrize("beta", [0.0, 2.0])
@pytest.mark.parametrize("extents", [(2, 2), (6, 6), (40, 40)])
def test_charge_distributions_are_distributions(extents: tuple[int, int], beta: float) -> None:
    distribution = exact.u1_charge_distribution(extents, beta)
    volume = math.prod(extents)
    assert min(distribution.values()) >= 0
    assert sum(distribution.values()) == pytest.approx(1)
    assert all(distribution[q] == pytest.approx(distribution[-q], abs=1e-12) for q in distribution)
    if not beta:
        assert exact.u1_charge_squared(extents, beta) == pytest.approx(volume / 12, rel=1e-8)


def test_another_coupling_or_group_is_told_apart() -> None:
    assert exact.gauge_torus_log_z((8, 8), 1, 2.001) != pytest.approx(52.7355866551, abs=1e-3)
    assert exact.gauge_torus_plaquette((8, 8), 3, 4.0) != pytest.approx(exact.gauge_torus_plaquette((8, 8), 2, 4.0))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: exact.gauge_torus_log_z((8, 8, 8), 1, 1.0), ValueError, "d = 2"),
        (lambda: exact.gauge_torus_log_z((8, 8), 0, 1.0), ValueError, "n >= 1"),
        (lambda: exact.gauge_torus_log_z((8, 8), 2.5, 1.0), TypeError, "integer n"),  # type: ignore[arg-type]
        (lambda: exact.gauge_torus_log_z((8, 8), 2, -1.0), ValueError, "beta >= 0"),
        (lambda: exact.gauge_torus_wilson_loop((2, 2), 2, 1.0, 5), ValueError, "up to 4 plaquettes"),
        (lambda: exact.u1_charge_distribution((1, 8), 1.0), ValueError, "at least 2"),
        (lambda: exact.u1_charge_squared((4, 4), math.nan), ValueError, "finite beta"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
