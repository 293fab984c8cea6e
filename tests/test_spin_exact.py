"""The oracles of spins against quadrature, enumeration, each other, and numbers of independent origin."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import eval_gegenbauer, i0e, i1e, ive, spherical_in

from lattices import exact
from lattices.action import Action
from lattices.exact.spins import SpinLink
from lattices.statistics import effective_sample_size, log_mean_exp, reweighted_mean
from lattices.theories.on import ON
from lattices.theories.xy import XY
from tests.laws.fields import generator
from tests.test_exact import slope


def log_lambda(link: SpinLink, l: int) -> float:
    return link.log_trivial + math.log(abs(link.ratios[l]))


# ---------------------------------------------------------------------------------------------- one link


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("beta", [0.3, 2.0, -1.5])
@pytest.mark.parametrize("l", [0, 1, 4])
def test_link_by_quadrature(n: int, beta: float, l: int) -> None:
    harmonic = np.cos if n == 2 else partial(eval_gegenbauer, l, n / 2 - 1)
    zonal = (lambda t: math.cos(l * t)) if n == 2 else (lambda t: harmonic(math.cos(t)) / harmonic(1.0))
    sphere = 2 * math.pi ** ((n - 1) / 2) / math.gamma((n - 1) / 2)  # the area of S^{n-2}
    weight = lambda t: sphere * math.exp(beta * math.cos(t)) * zonal(t) * math.sin(t) ** (n - 2)  # noqa: E731
    link = exact.on_link(n, beta)
    value = quad(weight, 0, math.pi, epsabs=1e-14)[0]
    assert link.ratios[l] * math.exp(link.log_trivial) == pytest.approx(value, rel=1e-11, abs=1e-13)
    assert link.slopes[l] * math.exp(link.log_trivial) == pytest.approx(
        slope(lambda b: exact.on_link(n, b).ratios[l] * math.exp(exact.on_link(n, b).log_trivial), beta), rel=1e-9
    )


@pytest.mark.parametrize("beta", [1e-9, 1e-3, 0.7, 30.0, 1e4])
def test_link_of_every_strength(beta: float) -> None:
    xy, heisenberg = exact.on_link(2, beta), exact.on_link(3, beta)
    assert xy.energy == pytest.approx(-i1e(beta) / i0e(beta), rel=1e-13)
    langevin = 1 / math.tanh(beta) - 1 / beta if beta > 0.1 else beta / 3 - beta**3 / 45
    assert heisenberg.energy == pytest.approx(-langevin, rel=1e-12)
    for l in (1, 5, 12):
        assert xy.ratios[l] == pytest.approx(ive(l, beta) / i0e(beta), rel=1e-11)
    if beta < 100:
        assert heisenberg.ratios[3] == pytest.approx(spherical_in(3, beta) / spherical_in(0, beta), rel=1e-11)
    assert math.isfinite(xy.log_trivial)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_free_link(n: int) -> None:
    link = exact.on_link(n, 0.0)
    area = 2 * math.pi ** (n / 2) / math.gamma(n / 2)
    assert link.log_trivial == link.log_measure == pytest.approx(math.log(area))
    assert link.ratios.tolist() == [1.0] + [0.0] * (len(link.ratios) - 1)
    assert link.slopes[1] == pytest.approx(1 / n)
    assert link.energy == link.correlation_length == 0
    assert link.dimensions[:3].tolist() == pytest.approx([1, n, (n + 2) * (n - 1) / 2])


@pytest.mark.parametrize("q", [2, 3, 64])
def test_clock_link(q: int) -> None:
    link = exact.clock_link(q, 0.8)
    if q == 2:
        assert link.ratios[1] == pytest.approx(math.tanh(0.8))
    if q == 64:
        assert link.ratios[:6] == pytest.approx(exact.on_link(2, 0.8).ratios[:6], rel=1e-11)
        assert link.log_trivial + math.log(2 * math.pi / q) == pytest.approx(exact.on_link(2, 0.8).log_trivial)
    energy = slope(lambda b: exact.clock_link(q, b).log_trivial, 0.8)
    assert -link.energy == pytest.approx(energy, rel=1e-9)
    assert link.correlation_length == pytest.approx(-1 / math.log(link.ratios[1]))


# ---------------------------------------------------------------------------------------------- chains and rings


@pytest.mark.parametrize(("n", "beta"), [(2, 1.3), (3, -0.8), (5, 2.0)])
def test_a_spin_bound_to_itself(n: int, beta: float) -> None:
    link = exact.on_link(n, beta)
    ring, single = exact.spin_ring(link, 1), exact.spin_chain(link, 1)
    assert ring.log_z == pytest.approx(link.log_measure + beta, abs=1e-12)
    assert ring.energy == pytest.approx(-1, abs=1e-12)
    assert (single.log_z, single.energy, single.magnetisation_squared) == (link.log_measure, 0, 1)


@pytest.mark.parametrize(("q", "beta", "length"), [(5, 0.9, 6), (3, -0.7, 5), (2, 0.4, 7)])
def test_clock_chains_by_enumeration(q: int, beta: float, length: int) -> None:
    oracle, link = exact.clock_enumeration((length,), beta, q), exact.clock_link(q, beta)
    ring = exact.spin_ring(link, length)
    assert ring.log_z == pytest.approx(oracle.log_z, abs=1e-12)
    assert ring.energy == pytest.approx(oracle.energy, abs=1e-13)
    torus = exact.clock_torus((length,), q, beta)
    assert torus.magnetisation_squared == pytest.approx(oracle.magnetisation_squared, abs=1e-12)
    angles = 2 * np.pi * np.stack(np.meshgrid(*[np.arange(q)] * length, indexing="ij")).reshape(length, -1) / q
    weights = np.exp(beta * np.cos(np.diff(angles, axis=0)).sum(0))
    chain, square = exact.spin_chain(link, length), np.abs(np.exp(1j * angles).sum(0)) ** 2
    assert chain.log_z == pytest.approx(math.log(weights.sum()), abs=1e-12)
    assert chain.magnetisation_squared == pytest.approx((weights * square).sum() / weights.sum() / length**2, abs=1e-13)


@pytest.mark.parametrize("solve", [exact.spin_chain, exact.spin_ring])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_energy_is_the_slope_of_log_z(solve: Callable, n: int) -> None:
    for beta in (-0.6, 0.0, 0.9, 12.0):
        by_hand = -slope(lambda b: solve(exact.on_link(n, b), 6).log_z, beta) / 6
        assert solve(exact.on_link(n, beta), 6).energy == pytest.approx(by_hand, abs=1e-9)


def test_long_rings_are_chains() -> None:
    link = exact.on_link(3, 2.0)
    ring, chain = exact.spin_ring(link, 400), exact.spin_chain(link, 400)
    assert ring.log_z == pytest.approx(400 * link.log_trivial, abs=1e-12)
    assert ring.energy == pytest.approx(400 / 399 * chain.energy, abs=1e-12)


# ---------------------------------------------------------------------------------------------- tori


@pytest.mark.parametrize(
    ("n", "beta", "normalised"),
    [(2, 0.5, 1.0203191668), (2, 1.0, 3.6953950205), (3, 0.5, 0.6742239519), (3, 1.0, 2.6097630992)],
)
def test_square_of_four(n: int, beta: float, normalised: float) -> None:
    measure = exact.on_link(n, beta).log_measure
    assert exact.on_square(n, beta).log_z - 4 * measure == pytest.approx(normalised, abs=1e-10)
    by_hand = -slope(lambda b: exact.on_square(n, b).log_z, beta) / 4
    assert exact.on_square(n, beta).energy == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize(
    ("extents", "q", "beta"),
    [((2, 3), 4, 0.7), ((2, 2), 6, 1.2), ((1, 3), 5, 0.7), ((3, 3), 3, -0.9), ((4, 2), 3, 0.8)],
)
def test_clock_torus_by_enumeration(extents: tuple[int, int], q: int, beta: float) -> None:
    found, oracle = exact.clock_torus(extents, q, beta, smallest=0.0), exact.clock_enumeration(extents, beta, q)
    assert found.log_z == pytest.approx(oracle.log_z, abs=1e-12)
    assert found.energy == pytest.approx(oracle.energy, abs=1e-12)
    assert found.magnetisation_squared == pytest.approx(oracle.magnetisation_squared, abs=1e-12)
    assert found.truncation == 0


def test_xy_torus() -> None:
    square, ring = exact.xy_torus((2, 2), 1.0, 1e-9), exact.xy_torus((5,), 0.7)
    assert square.log_z == pytest.approx(exact.on_square(2, 1.0).log_z, abs=1e-11)
    assert square.energy == pytest.approx(exact.on_square(2, 1.0).energy, abs=1e-10)
    assert ring.log_z == pytest.approx(exact.spin_ring(exact.on_link(2, 0.7), 5).log_z, abs=1e-12)
    sixteen = exact.xy_torus((4, 4), 1.0, 1e-6)
    assert sixteen.log_z - 16 * math.log(2 * math.pi) == pytest.approx(10.64748134064, abs=1e-8)
    assert sixteen.energy == pytest.approx(-1.41172912, abs=1e-8)
    assert 0 < sixteen.truncation < 1e-6
    assert exact.xy_torus((3, 2), 0.6).log_z == exact.xy_torus((2, 3), 0.6).log_z
    free = exact.xy_torus((2, 3), 0.0)
    assert free.log_z == pytest.approx(6 * math.log(2 * math.pi))
    assert free.magnetisation_squared == pytest.approx(1 / 6)


def test_heisenberg_strip() -> None:
    ring = exact.spin_ring(exact.on_link(3, 0.8), 2)
    single = exact.heisenberg_strip(1, 0.8, 1e-14)
    assert single.log_z == pytest.approx(ring.log_z + 2 * 0.8, abs=1e-8)  # both spins are bound to themselves
    assert single.energy == pytest.approx(ring.energy - 1, abs=1e-7)
    square = exact.heisenberg_strip(2, 0.6)
    assert square.log_z == pytest.approx(exact.on_square(3, 0.6).log_z, abs=1e-9)
    assert square.energy == pytest.approx(exact.on_square(3, 0.6).energy, abs=1e-8)
    assert square.truncation < 1e-6
    assert exact.heisenberg_strip(3, 0.0).magnetisation_squared == pytest.approx(1 / 6)
    by_hand = -slope(lambda b: exact.heisenberg_strip(3, b).log_z, -0.5, 1e-2) / 6
    assert exact.heisenberg_strip(3, -0.5).energy == pytest.approx(by_hand, abs=1e-7)


@pytest.mark.parametrize(
    ("action", "solution"),
    [
        (ON((2, 3), 3, 0.4), exact.heisenberg_strip(3, 0.4, 1e-10)),
        (XY((2, 3), 0.4), exact.xy_torus((2, 3), 0.4)),
        (ON((5,), 4, 0.9), exact.spin_ring(exact.on_link(4, 0.9), 5)),
    ],
    ids=str,
)
def test_against_uniform_samples(action: Action, solution: exact.SpinSolution) -> None:
    x = action.field.random(60_000, generator())
    log_weights = -action(x)
    measure = exact.on_link(2 if isinstance(action, XY) else action.n, 1.0).log_measure  # type: ignore[attr-defined]
    volume = action.field.lattice.volume
    assert effective_sample_size(log_weights).value > 0.1
    assert abs(log_mean_exp(log_weights).z_score(solution.log_z - volume * measure)) < 4
    energy = action(x) / (action.beta * volume)  # type: ignore[attr-defined]
    assert abs(reweighted_mean(energy, log_weights).z_score(solution.energy)) < 4
    if not math.isnan(solution.magnetisation_squared):
        s = torch.stack([x.cos(), x.sin()], -1) if isinstance(action, XY) else x
        square = s.flatten(1, -2).mean(1).square().sum(-1)
        assert abs(reweighted_mean(square, log_weights).z_score(solution.magnetisation_squared)) < 4


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: exact.on_link(1, 1.0), "n >= 2"),
        (lambda: exact.on_link(2, math.nan), "finite beta"),
        (lambda: exact.clock_link(1, 1.0), "q >= 2"),
        (lambda: exact.spin_ring(exact.on_link(2, 1.0), 0), "length >= 1"),
        (lambda: exact.xy_torus((2, 2, 2), 1.0), "1 to 2"),
        (lambda: exact.xy_torus((8, 8), 5.0), "few states"),
        (lambda: exact.clock_torus((2, 2), 3, 1.0, smallest=-1.0), "smallest"),
        (lambda: exact.heisenberg_strip(2, 1.0, smallest=0.0), "smallest > 0"),
    ],
)
def test_wrong_arguments(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()
