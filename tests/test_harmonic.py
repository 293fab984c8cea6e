"""Harmonic flows: eigenfunctions, divergence, tangents, symmetries, densities on spheres and tori, and training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import eval_gegenbauer, eval_legendre
from torch import Generator, Tensor

from flows.architectures.harmonic import Harmonic
from flows.bases import White
from flows.configuration import Configuration
from flows.distribution import Transformed
from flows.layers.harmonic import HarmonicFlow, HarmonicSpec
from flows.training import fit
from flows.transforms.harmonics import Harmonics, SphereHarmonics, TorusHarmonics, harmonics, n_harmonics
from flows.updates.natural import NaturalGradient
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Real, Sphere
from lattices.invariance import SignFlip, Translations
from lattices.lattice import Lattice
from lattices.spins import AngleShifts, AxisRotations, GlobalRotations, SpinPointGroup
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.torus_correlated import TorusCorrelated
from lattices.theories.torus_mixture import UNIMODAL, TorusMixture
from symmetries.rotations import RotationIrreps
from tests.laws import bijections as laws

SPHERES = [FieldSpace(Lattice((1,)), Sphere(n)) for n in (1, 2, 3, 4)]
TORI = [FieldSpace(Lattice((n,)), Circle()) for n in (1, 2, 3)]
CIRCLE, BALL, SU2, _ = SPHERES
CYCLE, QUARTER_TURN = ((0, 1, 0), (0, 0, 1), (1, 0, 0)), ((0, -1, 0), (1, 0, 0), (0, 0, 1))
CUBE = SpinPointGroup((CYCLE, QUARTER_TURN, ((-1, 0, 0), (0, -1, 0), (0, 0, -1))))
FLOWS = [pytest.param(flow, id=str(i)) for i, flow in enumerate(HarmonicFlow.examples())]


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def functions(field: FieldSpace, degree: int = 3) -> tuple[Harmonics, Tensor]:
    """All harmonics, and a few points."""
    return harmonics(field, degree), field.random(5, seeded()).flatten(1)


def moved(field: FieldSpace, spec: HarmonicSpec, scale: float = 0.1, n_steps: int = 4) -> HarmonicFlow:
    return laws.perturbed(HarmonicFlow(field, spec, n_steps, "dop853"), seeded(2), scale)


def trace(v: Tensor, x: Tensor) -> Tensor:
    """Σ_i ∂_i v_i of vectors that were computed from x, sample by sample."""
    return sum(torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------- eigenfunctions


@pytest.mark.parametrize("field", SPHERES + TORI, ids=str)
def test_harmonics_are_eigenfunctions(field: FieldSpace) -> None:
    f, x = functions(field)
    each = torch.eye(len(f.eigenvalues), dtype=torch.float64)
    laplacians = torch.stack([f(c[None], x)[1] for c in each], 1)
    torch.testing.assert_close(laplacians, -f.eigenvalues * f.values(x), rtol=0, atol=1e-9)
    assert f.eigenvalues.diff().min() >= 0
    assert f.eigenvalues[0] > 0


@pytest.mark.parametrize("field", SPHERES + TORI, ids=str)
def test_velocities_are_gradients_with_their_divergence(field: FieldSpace) -> None:
    f, x = functions(field)
    coefficients = torch.randn(1, len(f.eigenvalues), generator=seeded(), dtype=torch.float64)
    y = x.clone().requires_grad_()
    v, divergence = f(coefficients, y)
    (slope,) = torch.autograd.grad((f.values(y) @ coefficients[0]).sum(), y)
    torch.testing.assert_close(v.detach(), slope)
    torch.testing.assert_close(divergence, trace(v, y))
    f.eigenvalues[-1] += 0.1
    wrong = f(coefficients, x)[1]
    assert (wrong - divergence).abs().max() > 1e-3  # a wrong eigenvalue is noticed


@pytest.mark.parametrize("field", SPHERES + TORI, ids=str)
def test_coefficients_may_differ_from_sample_to_sample(field: FieldSpace) -> None:
    f, x = functions(field)
    coefficients = torch.randn(len(x), len(f.eigenvalues), generator=seeded(), dtype=torch.float64)
    together = f(coefficients, x)
    for i in range(len(x)):
        for a, b in zip(together, f(coefficients[i : i + 1], x[i : i + 1])):
            torch.testing.assert_close(a[i : i + 1], b)


@pytest.mark.parametrize("field", SPHERES + TORI, ids=str)
def test_stein_columns_are_divergence_and_drift(field: FieldSpace) -> None:
    f, x = functions(field)
    s = field.target.normal(x, seeded(3))
    each = torch.eye(len(f.eigenvalues), dtype=torch.float64)
    columns = torch.stack([divergence + (v * s).sum(1) for v, divergence in (f(c[None], x) for c in each)], 1)
    torch.testing.assert_close(f.stein(x, s), columns)
    assert not torch.allclose(f.stein(x, -s), columns)


@pytest.mark.parametrize(("dimension", "degree", "n"), [(1, 5, 10), (2, 8, 80), (3, 6, 139), (4, 3, 49)])
def test_addition_theorem_of_spherical_harmonics(dimension: int, degree: int, n: int) -> None:
    f = SphereHarmonics(dimension, degree)
    assert len(f.eigenvalues) == n
    x, y = SPHERES[dimension - 1].random(20, seeded()).flatten(1).split(10)
    for l in range(1, degree + 1):
        shell = f.eigenvalues == l * (l + dimension - 1)
        order, cosine = (dimension - 1) / 2, (x * y).sum(1).numpy()
        if dimension == 1:
            zonal = np.cos(l * np.arccos(cosine))
        else:
            zonal = eval_gegenbauer(l, order, cosine) / eval_gegenbauer(l, order, 1.0)
        product = (f.values(x) * f.values(y))[:, shell].sum(1).numpy()
        assert np.allclose(product, int(shell.sum()) * zonal, atol=1e-11)
        assert not np.allclose(product, int(shell.sum()) * eval_legendre(l + 1, cosine), atol=1e-3)


def test_on_the_sphere_they_span_the_irreducible_representations_of_rotations() -> None:
    f, x = SphereHarmonics(2, 8), BALL.random(60, seeded()).flatten(1)
    g = torch.linalg.qr(torch.randn(3, 3, generator=seeded(), dtype=torch.float64)).Q
    for l in range(1, 9):
        shell = f.eigenvalues == l * (l + 1)
        before, after = f.values(x)[:, shell], f.values(x @ g.mT)[:, shell]
        matrix = torch.linalg.lstsq(before, after).solution.mT
        torch.testing.assert_close(before @ matrix.mT, after, rtol=0, atol=1e-10)
        known = RotationIrreps(f"{l}{'o' if l % 2 else 'e'}").matrix(g)
        assert abs(matrix.trace() - known.trace()) < 1e-9  # the same character
        torch.testing.assert_close(matrix @ matrix.mT, torch.eye(2 * l + 1, dtype=torch.float64), rtol=0, atol=1e-10)


def test_waves_are_half_the_whole_vectors_of_a_ball() -> None:
    assert [len(TorusHarmonics(2, degree).waves) for degree in (1, 2, 3, 4)] == [2, 6, 14, 24]
    assert len(TorusHarmonics(1, 7).waves) == 7
    assert len(TorusHarmonics(30, 1).waves) == 30
    waves = TorusHarmonics(3, 3).waves
    assert len(torch.cat([waves, -waves]).unique(dim=0)) == 2 * len(waves)


@pytest.mark.parametrize("field", SPHERES + TORI, ids=str)
def test_harmonics_are_counted_before_they_are_made(field: FieldSpace) -> None:
    for degree in (1, 2, 4):
        assert n_harmonics(field, degree) == len(harmonics(field, degree).eigenvalues)


# -------------------------------------------------------------------------------------------------------- the flow


@pytest.mark.parametrize("flow", FLOWS)
def test_tangents_are_derivatives_of_log_density(flow: HarmonicFlow) -> None:
    flow = laws.perturbed(flow, seeded(), 0.2).refined(24, "rk4")
    base, context = White(flow.domain), laws.couplings(flow, 3, seeded())
    z = base.sample(3, generator=seeded())
    pushed, tangents = flow.push_tangents(z, base.score(z), context)
    direction = torch.randn(flow.theta.shape, generator=seeded(3), dtype=torch.float64)

    def log_prob(step: float) -> Tensor:
        other = flow.refined(flow.n_steps)
        other.theta = torch.nn.Parameter(flow.theta.detach() + step * direction)
        return Transformed(base, other).log_prob(pushed.x, context).detach()

    slope = (log_prob(1e-4) - log_prob(-1e-4)) / 2e-4
    predicted = tangents @ direction.flatten()
    assert torch.allclose(predicted, slope, rtol=1e-2, atol=1e-2)  # trapezoidal rule, h = 1/24
    assert not torch.allclose(-predicted, slope, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(pushed, flow.push_score(z, base.score(z), context))


@pytest.mark.parametrize("field", [*SPHERES[:3], TORI[1]], ids=str)
def test_poles_and_antipodes_are_ordinary_points(field: FieldSpace) -> None:
    flow = moved(field, HarmonicSpec(2, 2), n_steps=8)
    size = math.prod(field.event_shape)
    special = torch.cat([torch.eye(size, dtype=torch.float64), -torch.eye(size, dtype=torch.float64)])
    special = special.reshape(-1, *field.event_shape)
    near = field.exp(special, 1e-6 * field.target.normal(special, seeded()))
    (x, log_det), (y, near_log_det) = flow(special), flow(near)
    assert (x - special).abs().max() > 1e-2
    assert laws.gap(field, x, y) < 1e-4
    assert (log_det - near_log_det).abs().max() < 1e-4
    assert laws.gap(field, flow.inverse(x)[0], special) < 1e-6
    single = flow.float().forward(special.float())
    sum(part.sum() for part in single).backward()
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in (*single, flow.theta.grad))


def sphere_grid(n: int = 50) -> tuple[Tensor, Tensor]:
    """Points and areas on S²: Gauss–Legendre in the height, trapezoidal in the longitude."""
    heights, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(n))
    angle = 2 * math.pi * torch.arange(2 * n, dtype=torch.float64) / (2 * n)
    h, phi = (t.flatten() for t in torch.meshgrid(heights, angle, indexing="ij"))
    radius = (1 - h**2).sqrt()
    points = torch.stack([radius * phi.cos(), radius * phi.sin(), h], -1)
    return points[:, None], weights.repeat_interleave(2 * n) * math.pi / n


def torus_grid(n: int = 60) -> tuple[Tensor, Tensor]:
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n - math.pi
    points = torch.cartesian_prod(angle, angle)
    return points, points.new_full((n * n,), (2 * math.pi / n) ** 2)


@pytest.mark.parametrize(("field", "grid"), [(BALL, sphere_grid()), (TORI[1], torus_grid())], ids=["sphere", "torus"])
def test_densities_are_normalised(field: FieldSpace, grid: tuple[Tensor, Tensor]) -> None:
    flow = Transformed(White(field), moved(field, HarmonicSpec(3, 2), 0.02, 3))
    points, areas = grid
    with torch.no_grad():
        density = flow.log_prob(points).exp()
        flow.bijection.harmonics.eigenvalues.mul_(1.01)
        wrong = flow.log_prob(points).exp()
    assert density.max() > 1.5 * density.min()
    assert abs(float(density @ areas) - 1) < 1e-6
    assert abs(float(wrong @ areas) - 1) > 1e-5


def test_the_integration_error_has_its_order() -> None:
    flow = moved(BALL, HarmonicSpec(3, 2), 0.03)
    z = BALL.random(20, seeded())
    errors = [float(flow.refined(n, "rk4").integration_error(z).mean()) for n in (6, 12, 24)]
    assert errors[0] > 12 * errors[1] > 144 * errors[2] > 0


@pytest.mark.parametrize("field", [BALL, TORI[1]], ids=str)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_raised_flow_is_the_same_map(field: FieldSpace, symmetric: bool) -> None:
    claim = AxisRotations() if field == BALL else AngleShifts((1, -1))
    flow = moved(field, HarmonicSpec(2, 2, invariant_under=(claim,) if symmetric else ()))
    high = flow.raised(5, 3)
    assert high.theta.numel() > flow.theta.numel()
    z = field.random(5, seeded())
    for a, b in zip(high(z), flow(z)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert laws.gap(field, laws.perturbed(high, seeded(), 0.1)(z)[0], flow(z)[0]) > 1e-3
    with pytest.raises(ValueError, match="at least the degree"):
        flow.raised(1)


# ------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize(
    ("field", "claim", "degree", "n"),
    [
        (BALL, AxisRotations(), 5, 5),
        (SU2, AxisRotations(), 4, 4),
        (BALL, CUBE, 8, 3),
        (BALL, SpinPointGroup.cyclic(3), 3, 5),
        (TORI[1], AngleShifts((1, -1)), 4, 4),
        (TORI[1], SignFlip(), 2, 6),
        (TORI[1], Translations(), 1, 2),
        (TORI[2], AngleShifts((1, 1, 1)), 2, 6),
    ],
    ids=str,
)
def test_invariant_harmonics_are_invariant_and_all_of_them(field: FieldSpace, claim, degree: int, n: int) -> None:  # type: ignore[no-untyped-def]
    f, everything = harmonics(field, degree, (claim,)), harmonics(field, degree)
    x = field.random(7, seeded())
    for g in claim.generators(field):
        image = field.act(g, x).flatten(1)
        torch.testing.assert_close(f.values(image), f.values(x.flatten(1)), rtol=0, atol=1e-10)
        assert not torch.allclose(everything.values(image), everything.values(x.flatten(1)), atol=1e-3)
    assert len(f.eigenvalues) == n
    values = f.values(field.random(20_000, seeded()).flatten(1))
    assert (values.mT @ values / 20_000 - torch.eye(n, dtype=torch.float64)).abs().max() < 0.1


def test_a_false_claim_is_rejected() -> None:
    flow = HarmonicFlow(BALL, HarmonicSpec(3, 1, invariant_under=(SpinPointGroup.cyclic(3),)), 2)
    laws.equivariant_as_claimed(flow, seeded())
    flow.symmetries = (AxisRotations(),)
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(flow, seeded())


def test_the_architecture_keeps_the_symmetries_of_the_action() -> None:
    action = TorusCorrelated((1, 1))
    flow = Harmonic(degree=4).build(action)
    assert flow.symmetries == action.symmetries
    assert flow.bijection.theta.shape == (1, 2, 4)
    x = flow.sample(3, generator=seeded())
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x))
    assert Harmonic(degree=2, n_times=1).build(SphereMixture()).bijection.theta.shape == (1, 1, 8)
    usual = [Harmonic().build(action) for action in (SphereMixture(), SphereMixture.four_on_su2(), TorusMixture())]
    assert [flow.bijection.spec.degree for flow in usual] == [8, 6, 7]


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("action", "architecture", "n"),
    [
        (SphereMixture(concentration=3.0), Harmonic(degree=4, n_times=2, n_steps=4), 9),
        (SphereMixture.four_on_su2(2.0), Harmonic(degree=2, n_times=2, n_steps=4), 6),
        (TorusMixture(UNIMODAL), Harmonic(degree=2, n_times=2, n_steps=4), 6),
        (TorusCorrelated(), Harmonic(degree=4, n_times=2, n_steps=4), 6),
    ],
    ids=["sphere", "su2", "unimodal", "correlated"],
)
def test_natural_steps_learn_mixtures(action: Action, architecture: Harmonic, n: int) -> None:
    problem = Configuration(action, architecture, dtype="float64").build()
    fit(problem, NaturalGradient(n_samples=800, chunk=400, damping=1e-3), n, generator=seeded())
    with torch.no_grad():
        x, log_prob = problem.flow.sample_with_log_prob(4000, generator=seeded(5))
    excess = log_prob + action.energy(x) + action.log_z()  # type: ignore[attr-defined]
    weights = (-excess).exp()
    assert weights.mean() ** 2 / weights.square().mean() > 0.99
    assert excess.mean() < 5e-3
    assert abs(weights.mean() - 1) < 4 * weights.std() / len(weights) ** 0.5


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: HarmonicFlow(FieldSpace(Lattice((2,)), Sphere(2))), TypeError, "single unit vector"),
        (lambda: HarmonicFlow(FieldSpace(Lattice((2,)), Real())), TypeError, "angles on sites"),
        (lambda: HarmonicFlow(FieldSpace(Lattice((2, 2)), Circle(), "links")), TypeError, "angles on sites"),
        (lambda: HarmonicFlow(BALL, n_steps=0), ValueError, "n_steps >= 1"),
        (lambda: HarmonicFlow(BALL, method="euler"), ValueError, "rk4, dopri5, dop853"),
        (lambda: HarmonicSpec(degree=0), ValueError, "degree, n_times"),
        (lambda: HarmonicSpec(n_times=0), ValueError, "degree, n_times"),
        (lambda: harmonics(BALL, 0), ValueError, "whole degree >= 1"),
        (lambda: harmonics(BALL, 2.5), ValueError, "whole degree >= 1"),  # type: ignore[arg-type]
        (lambda: harmonics(BALL, 3, (GlobalRotations(),)), ValueError, "got 0 of degree"),
        (lambda: harmonics(BALL, 3, (CUBE,)), ValueError, "got 0 of degree"),
        (lambda: harmonics(FieldSpace(Lattice((4, 4)), Circle()), 3), ValueError, "at most 5000 functions"),
        (lambda: HarmonicFlow(BALL, HarmonicSpec(n_context=1))(BALL.random(2, seeded())), ValueError, r"\(batch, 1\)"),
        (
            lambda: Transformed(White(BALL), HarmonicFlow(BALL)).log_prob(2 * BALL.random(2, seeded())),
            ValueError,
            "off the manifold",
        ),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
