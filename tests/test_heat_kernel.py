"""The heat kernel of SU(N) and its gauge theory on the torus, against closed forms and Wilson's exact log Z."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from flows.heat_kernel import HeatKernel, HeatKernelPlaquette
from flows.sampling.class_functions import PlaquetteProduct, trace
from flows.villain import Villain
from lattices import exact
from lattices.gauge import CentreSymmetry
from lattices.gauge_observables import gauge_observables
from lattices.lattice import Lattice
from lattices.loops import PLAQUETTE, transporter
from lattices.theories.free_field import FreeField
from lattices.theories.su_n_gauge import SUNGauge
from symmetries.lie import SUN, U1
from symmetries.spectra import eigenangles
from tests.laws import distributions as laws

TIMES = [(2, 0.4), (2, 1.0), (2, 3.0), (3, 0.6), (3, 1.2), (3, 3.0), (4, 0.7), (4, 2.0)]
ACTIONS = [SUNGauge((3, 4), n=2, beta=2.2), SUNGauge((3, 3), n=3, beta=4.0), SUNGauge((2, 2), n=4, beta=2.0)]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def deviation(values: Tensor, expected: float) -> float:
    """How many standard errors the mean is from an exact value."""
    error = values.double().std().item() / math.sqrt(len(values))
    return abs(values.double().mean().item() - expected) / error


def kernel(n: int, time: float) -> PlaquetteProduct:
    return PlaquetteProduct(SUN(n), exact.heat_kernel_expansion(n, time))


def gaps(theta: Tensor) -> Tensor:  # (..., N) -> (..., pairs)
    i, j = torch.triu_indices(theta.shape[-1], theta.shape[-1], 1)
    return theta[..., i] - theta[..., j]


def images(theta: Tensor, time: float) -> Tensor:  # (batch, N) -> (batch,)
    """Σ_n Π_{i<j} φ_ij 2 sin(φ_ij / 2) e^{-Σφ² / 2s}, φ = θ + 2πn: Poisson's summation of K_s Π 4 sin²(θ_ij / 2)."""
    windings = torch.tensor([w for w in product(range(-3, 4), repeat=theta.shape[1]) if sum(w) == 0]).double()
    phi = theta[:, None] + 2 * math.pi * windings
    factors = gaps(phi) * 2 * torch.sin(gaps(phi) / 2)
    return (factors.prod(-1) * torch.exp(-phi.square().sum(-1) / (2 * time))).sum(1)


# ------------------------------------------------------------------------------------------------------- one plaquette


def test_casimirs() -> None:
    for n in (2, 3, 4):
        expansion = exact.heat_kernel_expansion(n, 1.0)
        casimirs = {tuple(w): -math.log(u) for w, u in zip(expansion.weights.tolist(), expansion.ratios)}
        fundamental, adjoint = (1, *[0] * (n - 1)), (2, *[1] * (n - 2), 0)
        assert casimirs[fundamental] == pytest.approx((n * n - 1) / (2 * n))
        assert casimirs[adjoint] == pytest.approx(n)
    assert {-2 * math.log(u) for u in exact.heat_kernel_expansion(1, 1.0).ratios} >= {0.0, 1.0, 4.0}


@pytest.mark.parametrize(("n", "time"), TIMES)
def test_characters_sum_to_images_of_a_gaussian(n: int, time: float) -> None:
    g = SUN(n).random(500, seeded())
    theta = eigenangles(g)
    haar, wrapped = (2 * torch.sin(gaps(theta) / 2)).square().prod(-1), images(theta, time)
    for factor, sound in ((1.0, True), (1.1, False)):
        characters = haar * kernel(n, factor * time).density(g)
        difference = characters / characters.sum() - wrapped / wrapped.sum()
        assert (float(difference.abs().max()) < 1e-10) is sound


@pytest.mark.parametrize(("n", "time"), TIMES)
def test_draws_have_the_moments_of_the_kernel(n: int, time: float) -> None:
    plaquette, size = HeatKernelPlaquette(SUN(n), time), 1000 if n == 4 else 4000
    draws = plaquette.draw(size, seeded())
    assert float(SUN(n).project(draws).sub(draws).abs().max()) < 1e-12
    chance = plaquette.chance(draws)
    assert float(chance.min()) > -1e-12
    assert float(chance.max()) < 1 + 1e-12
    fundamental, adjoint = trace(draws), draws.diagonal(dim1=1, dim2=2).sum(1).abs() ** 2 - 1
    casimir = (n * n - 1) / (2 * n)
    assert deviation(fundamental, math.exp(-time * casimir)) < 4
    assert deviation(fundamental, math.exp(-time * casimir) + 0.1) > 4
    assert deviation(adjoint, (n * n - 1) * math.exp(-time * n)) < 4


def test_both_ways_of_drawing_are_in_use() -> None:
    assert {HeatKernelPlaquette(SUN(n), time).diffuses for n, time in TIMES} == {True, False}


@pytest.mark.parametrize("n", [2, 3])
def test_convolution_adds_times(n: int) -> None:
    group, haar = SUN(n), SUN(n).random(4000, seeded())
    for g in haar[:3]:
        folded = kernel(n, 1.0).density(haar) * kernel(n, 1.5).density(group.compose(group.inverse(haar), g))
        assert deviation(folded, kernel(n, 2.5).density(g[None]).item()) < 4
    one, squared = kernel(n, 1.3), PlaquetteProduct(group, exact.heat_kernel_expansion(n, 0.65), 2)
    torch.testing.assert_close(squared.density(haar), one.density(haar))


# ----------------------------------------------------------------------------------------------------------- the torus


def test_u1_is_villain() -> None:
    stiffness, villain = 0.7, Villain(Lattice((2, 3)), 0.7)
    x = villain.sample(5, generator=seeded())
    expansion = exact.heat_kernel_expansion(1, 1 / stiffness)
    angles = x[:, 0] + x[:, 1].roll(-1, 1) - x[:, 0].roll(-1, 2) - x[:, 1]
    density = PlaquetteProduct(U1(), expansion).density(angles.flatten()).reshape(5, -1)
    log_prob = density.log().sum(1) - math.log((expansion.ratios**6).sum())
    torch.testing.assert_close(log_prob, villain.log_prob(x))


@pytest.mark.parametrize("time", [0.5, 1.5])
def test_plaquettes_of_a_torus(time: float) -> None:
    """SU(2): ⟨Tr P / 2⟩ = Σ_m Σ_{k=m±1} (k/m) u_k u_m^{V-1} / 2 Σ_m u_m^V, with u_m = e^{-s (m² - 1) / 4}."""
    q = HeatKernel(Lattice((2, 2)), n=2, time=time)
    m = torch.arange(1, 60, dtype=torch.float64)
    u = torch.exp(-time * (m**2 - 1) / 4)
    up, down = (m + 1) / m * torch.exp(-time * ((m + 1) ** 2 - 1) / 4), (m - 1) / m * u.roll(1)
    expected = float(((up + down) * u**3).sum() / (2 * (u**4).sum()))
    values = gauge_observables(q.field, q.sample(3000, generator=seeded()))["plaquette"]
    assert deviation(values, expected) < 4
    assert deviation(values, 0.85 * expected) > 4
    assert float(q.log_normaliser) == pytest.approx(math.log(float((u**4).sum())))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: f"SU({a.n})")
def test_wilson_reweights_to_its_exact_log_z(action: SUNGauge) -> None:
    q, size = HeatKernel.of(action), 300 if action.n == 4 else 1000
    x, log_prob = q.sample_with_log_prob(size, generator=seeded(2))
    assert q.field.contains(x, tolerance=1e-10).all()
    log_z = exact.gauge_torus_log_z(action.extents, action.n, action.beta)
    weights = torch.exp(-action(x) - log_prob - log_z)
    assert float(weights.sum() ** 2 / weights.square().sum()) > size / 3
    assert deviation(weights, 1.0) < 4
    assert deviation(weights * 1.2, 1.0) > 4


def test_of_has_the_loops_of_the_plane() -> None:
    action = SUNGauge((8, 8), n=3, beta=5.0)
    q = HeatKernel.of(action, stretch=1.0)
    assert math.exp(-4 / 3 * q.time) == pytest.approx(exact.gauge_plane_plaquette(3, 5.0))
    assert HeatKernel.of(action).time == pytest.approx(1.05 * q.time)
    assert CentreSymmetry() in q.symmetries


@pytest.mark.parametrize(("n", "time"), [(2, 0.5), (3, 0.6), (4, 1.0)])
def test_scores_are_finite_and_slopes_everywhere(n: int, time: float) -> None:
    q = HeatKernel(Lattice((2, 2)), n, time)
    x, field = q.sample(3, generator=seeded()), q.field
    x[0] = torch.eye(n)  # all plaquettes 1
    x[1, 0, 0, 0] = torch.polar(torch.tensor(1.0), torch.tensor(2 * math.pi / n)) * torch.eye(n)
    x[1, 1] = x[1, 0, 1] = x[1, 0, 0, 1] = torch.eye(n)  # two plaquettes in the centre
    v, step = field.target.normal(x, seeded()), 1e-5
    score = q.score(x)
    slope = (q.log_prob(field.exp(x, step * v)) - q.log_prob(field.exp(x, -step * v))) / (2 * step)
    assert score.abs().isfinite().all()
    assert score[:2].abs().max() < 1e-3  # a maximum and a saddle
    torch.testing.assert_close(field.target.inner(score, v).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-4)


def test_single_precision_is_the_rounded_density() -> None:
    exact_q, q = (HeatKernel(Lattice((2, 3)), 3, 0.6, dtype) for dtype in (torch.float64, torch.float32))
    x = exact_q.field.random(200, seeded())  # far from typical: K_s is 1e-5 of its maximum
    assert float(kernel(3, 0.6).chance(transporter(x, PLAQUETTE).flatten(0, 2)).min()) < 1e-5
    log_prob = q.log_prob(x.to(torch.complex64))
    torch.testing.assert_close(log_prob.double(), exact_q.log_prob(x), rtol=1e-5, atol=1e-3)
    assert q.score(x.to(torch.complex64)).abs().isfinite().all()


def test_the_law_rejects_another_time() -> None:
    faulty = HeatKernel(Lattice((2, 2)), n=2, time=2.0)
    faulty._kernel = kernel(2, 1.7)
    with pytest.raises(AssertionError, match="standard errors"):
        laws.reweights_to_one(faulty, seeded())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: HeatKernel(Lattice((4, 4, 4)), 2, 1.0), ValueError, "d = 2"),
        (lambda: HeatKernel(Lattice((4, 4)), 2, 0.0), ValueError, "time > 0"),
        (lambda: HeatKernel(Lattice((4, 4)), 3, 0.1), ValueError, "longer time"),
        (lambda: HeatKernel(Lattice((4, 4)), 2, 1.0).sample(0), ValueError, "n >= 1"),
        (lambda: HeatKernel.of(SUNGauge((4, 4), n=2, beta=0.0)), ValueError, "beta > 0"),
        (lambda: HeatKernel.of(FreeField((4, 4), 1.0)), ValueError, "SUNGauge"),  # type: ignore[arg-type]
        (lambda: exact.heat_kernel_expansion(2, 0.0), ValueError, "time > 0"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
