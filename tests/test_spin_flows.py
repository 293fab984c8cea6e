"""The continuous flow of spins and its bases beyond their laws: divergence, tangents, trees, levels, training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import ive
from torch import Tensor

from flows.architectures.spin_continuous import SpinContinuous
from flows.bases import White
from flows.distribution import Distribution, Transformed
from flows.layers.bond_features import bond_features
from flows.layers.spin_continuous import SpinContinuousFlow, SpinFlowSpec
from flows.multiscale_spins import MultiscaleSpins
from flows.objectives import LogVariance, ReverseKL
from flows.sampling.reweighting import reweight
from flows.spanning_trees import SpanningTrees
from flows.trained import refined
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from flows.von_mises_fisher import log_normaliser, mean_over_field
from lattices.exact import on_link, on_square
from lattices.fields import Circle, FieldSpace, Real, Sphere
from lattices.lattice import Lattice
from lattices.multiscale import Multiscale
from lattices.spins import unit_vectors
from lattices.statistics import effective_sample_size
from lattices.theories.on import ON
from lattices.theories.xy import XY
from tests.laws.bijections import as_coordinates, as_tangent, n_coordinates

SPEC = SpinFlowSpec(n_powers=2, radius=1.0, n_times=1)
CASES = {
    "XY chain": (Circle(), (5,), SPEC),
    "XY": (Circle(), (3, 4), SPEC),
    "O(3)": (Sphere(2), (3, 4), replace(SPEC, n_powers=3)),
    "O(4) in 3d": (Sphere(3), (2, 2, 3), replace(SPEC, radius=0.8)),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flow(case: str, scale: float = 0.1, **changes: int) -> SpinContinuousFlow:
    target, extents, spec = CASES[case]
    flow = SpinContinuousFlow(FieldSpace(Lattice(extents), target), replace(spec, **changes), n_steps=4)
    with torch.no_grad():
        flow.theta.copy_(scale * torch.randn(flow.theta.shape, generator=seeded(), dtype=torch.float64))
    return flow


def divergences(flow: SpinContinuousFlow, x: Tensor) -> tuple[float, float]:
    """The trace of the Jacobian of the velocity of one field in an orthonormal frame, and the closed form."""
    field, coefficients = flow.domain, flow.coefficients(0.3)
    xi = torch.zeros(1, *n_coordinates(field), dtype=torch.float64)

    def velocity(xi: Tensor) -> Tensor:
        y = field.exp(x, as_tangent(field, x, xi))
        return as_coordinates(field, x, flow._as_vector(y, flow._velocity(coefficients, flow._situation(y))[0]))

    jacobian = torch.autograd.functional.jacobian(velocity, xi).reshape(xi.numel(), -1)
    return float(jacobian.trace()), flow._velocity(coefficients, flow._situation(x))[1].item()


# ------------------------------------------------------------------------------------------------------------ the flow


@pytest.mark.parametrize("case", list(CASES))
def test_divergence_is_the_trace_of_the_jacobian(case: str) -> None:
    flow = random_flow(case)
    numeric, closed = divergences(flow, flow.domain.random(1, seeded(1)))
    assert abs(numeric - closed) < 1e-10 * (1 + abs(closed))
    assert abs(divergences(flow, flow.domain.random(1, seeded(2)))[0] - closed) > 1e-3  # it does depend on the field


def test_a_forgotten_laplacian_is_noticed() -> None:
    flow = random_flow("O(3)")
    x = flow.domain.random(1, seeded(1))
    numeric, closed = divergences(flow, x)
    forgotten = bond_features(flow.domain, x, 1)[0].laplacians[0, 0] * flow._split(flow.coefficients(0.3))[0][0, 0]
    assert abs(numeric - (closed - forgotten.sum().item())) > 1e-3


def test_features_of_planar_spins_do_not_depend_on_how_they_are_written() -> None:
    angles = FieldSpace(Lattice((3, 4)), Circle())
    vectors = FieldSpace(Lattice((3, 4)), Sphere(1))
    x = angles.random(2, seeded())
    for planar, general in zip(bond_features(angles, x, 3), bond_features(vectors, unit_vectors(angles, x), 3)):
        sign = 1 if torch.allclose(planar.values, general.values) else -1  # of the orientation of a current
        assert torch.allclose(planar.values, sign * general.values)
        assert torch.allclose(planar.laplacians, sign * general.laplacians)
        lengths = general.gradients.square().sum(-1, keepdim=True)
        assert torch.allclose(planar.gradients.square(), lengths)


@pytest.mark.parametrize("case", ["XY", "O(3)"])
def test_tangents_are_derivatives_of_log_density(case: str) -> None:
    flow = random_flow(case, 0.02, n_times=2).refined(24)
    base = White(flow.domain)
    z = base.sample(2, generator=seeded())
    pushed, tangents = flow.push_tangents(z, base.score(z))

    def log_prob(theta: Tensor) -> Tensor:
        moved = flow.refined(flow.n_steps)
        moved.theta = torch.nn.Parameter(theta)
        return Transformed(base, moved).log_prob(pushed.x)

    direction = torch.randn(flow.theta.shape, generator=seeded(3), dtype=torch.float64)
    with torch.no_grad():
        theta = flow.theta.detach()
        slope = (log_prob(theta + 1e-4 * direction) - log_prob(theta - 1e-4 * direction)) / 2e-4
    predicted = tangents @ direction.flatten()
    assert torch.allclose(predicted, slope, rtol=1e-2, atol=1e-2)  # trapezoidal rule, h = 1/24
    assert not torch.allclose(-predicted, slope, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("target", [Circle(), Sphere(2)], ids=str)
def test_transfer_keeps_the_map_of_fields_that_repeat(target: Circle | Sphere) -> None:
    spec = SpinFlowSpec(n_powers=2, radius=1.5, pair_radius=1.5, n_times=2)
    small = SpinContinuousFlow(FieldSpace(Lattice((4, 4)), target), spec)
    with torch.no_grad():
        small.theta.copy_(0.05 * torch.randn(small.theta.shape, generator=seeded(), dtype=torch.float64))
    large = small.transferred(Lattice((8, 8)), radius=1.5)
    z = small.domain.random(2, seeded())
    tile = (1, 2, 2, *(1 for _ in target.shape))
    tiled = large(z.repeat(tile))
    assert torch.allclose(tiled[0], small(z)[0].repeat(tile), atol=1e-12)
    assert torch.allclose(tiled[1], 4 * small(z)[1])
    with pytest.raises(ValueError, match="expected a lattice of 2 axes"):
        small.transferred(Lattice((4, 4, 4)))


def test_error_of_integration_falls_with_its_order() -> None:
    flow = random_flow("O(3)", 0.05)
    z = flow.domain.random(4, seeded())
    errors = [float(flow.refined(n).integration_error(z).max()) for n in (4, 8)]
    assert errors[0] / errors[1] > 8
    x, _ = flow(z)
    assert flow.domain.contains(x, 1e-12).all()


# ----------------------------------------------------------------------------------------------------- spanning trees


@pytest.mark.parametrize("kappa", [1.3, -100.0, 1e4])
def test_the_determinant_is_a_sum_over_trees(kappa: float) -> None:
    """All sets of V - 1 of the 12 links of a 2 × 3 torus, those without a loop; also where trees differ by far."""
    base = SpanningTrees(FieldSpace(Lattice((2, 3)), Circle()), kappa)
    x = base.field.random(3, seeded()).requires_grad_()
    there = base.field.lattice.neighbours()[:, :2]
    links = [(site, int(there[site, mu])) for mu in range(2) for site in range(6)]
    bond, flat = on_link(2, kappa).log_trivial, x.flatten(1)
    trees = [chosen for chosen in combinations(links, 5) if spans(chosen, 6)]
    weights = [sum(kappa * (flat[:, a] - flat[:, b]).cos() - bond for a, b in chosen) for chosen in trees]
    expected = torch.stack(weights).logsumexp(0) - math.log(2 * math.pi * len(trees))  # type: ignore[arg-type]
    found = base.log_prob(x)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-11)
    slopes = [torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in (found, expected)]
    assert torch.allclose(*slopes, rtol=1e-9, atol=1e-9)


def spans(links: tuple[tuple[int, int], ...], n: int) -> bool:
    parts = list(range(n))
    for a, b in links:
        if parts[a] == parts[b]:
            return False
        parts = [parts[a] if part == parts[b] else part for part in parts]
    return len(set(parts)) == 1


@pytest.mark.parametrize("target", [Circle(), Sphere(2), Sphere(3)], ids=str)
def test_energy_of_painted_rings(target: Circle | Sphere) -> None:
    """Of L links one is cut: ⟨s·s'⟩ of a link is [(L - 1) A + A^{L-1}] / L."""
    n, length, kappa = (target.n + 1 if isinstance(target, Sphere) else 2), 5, 1.2
    base = SpanningTrees(FieldSpace(Lattice((length,)), target), kappa)
    s = unit_vectors(base.field, base.sample(20_000, generator=seeded()))
    energy = (s * s.roll(-1, 1)).sum(-1).mean(1)
    a = ive(n / 2, kappa) / ive(n / 2 - 1, kappa)
    error = float(energy.std()) / len(energy) ** 0.5
    assert abs(float(energy.mean()) - ((length - 1) * a + a ** (length - 1)) / length) < 4 * error
    assert abs(float(energy.mean()) - a) > 4 * error  # as if no link were cut


# -------------------------------------------------------------------------------------------------- coarse to fine


@pytest.mark.parametrize("order", [*Multiscale.examples(), Multiscale(Lattice((8, 4)), 3, 0)], ids=str)
def test_every_site_is_filled_once_after_its_parents(order: Multiscale) -> None:
    filled = [0]
    for level in order.levels:
        there = level.parents[level.present > 0]
        assert set(there.tolist()) <= set(filled)
        assert not set(level.sites.tolist()) & set(filled)
        assert torch.allclose(level.orbits.sum(1), torch.ones(len(level.orbits), dtype=torch.float64))
        assert torch.allclose(level.triples.flatten(1).sum(1), torch.ones(len(level.triples), dtype=torch.float64))
        filled += level.sites.tolist()
    assert sorted(filled) == list(range(order.lattice.volume))


@pytest.mark.parametrize("action", [XY((2,), 0.8), ON((2,), 3, -1.5), ON((4,), 4, 0.7)], ids=str)
def test_the_last_half_is_exact(action: XY | ON) -> None:
    """Two sites are a single level; of four, the weights depend on the first two alone."""
    base = MultiscaleSpins.of(action)
    x, log_prob = base.sample_with_log_prob(50, generator=seeded())
    weights = -action(x) - log_prob
    y = action.field.random(50, seeded(1))
    y[:, ::2] = x[:, ::2]
    again = -action(y) - base.log_prob(y)
    assert torch.allclose(weights, again, atol=1e-12)
    assert (float(weights.detach().std()) < 1e-12) == (action.extents == (2,))


@pytest.mark.parametrize("action", [XY((4, 4), 0.7), XY((2, 4), 0.7), ON((2, 4, 6), 3, -0.4)], ids=str)
def test_the_last_half_sees_all_its_neighbours(action: XY | ON) -> None:
    """In boxes of any shape: moving one spin of the last class changes log q as it changes -S."""
    base, x = MultiscaleSpins.of(action), action.field.random(3, seeded())
    y = x.clone()
    site = (slice(None), *base.field.lattice.coordinates()[base.levels[-1].sites[0]].tolist())
    y[site] = action.field.random(3, seeded(1))[site]
    assert torch.allclose(base.log_prob(y) - base.log_prob(x), action(x) - action(y), atol=1e-12)


@pytest.mark.parametrize("base", list(MultiscaleSpins.examples()), ids=lambda base: str(base.field))
def test_tangents_of_levels_are_derivatives(base: MultiscaleSpins) -> None:
    base = base.double()
    with torch.no_grad():
        base.theta.add_(0.3 * torch.randn(base.theta.shape, generator=seeded(), dtype=torch.float64))
    context = torch.randn(3, base.n_context, generator=seeded(), dtype=torch.float64) if base.n_context else None
    x = base.sample(3, context, seeded(1))
    rows = []
    for i in range(3):
        log_prob = base.log_prob(x[i : i + 1], None if context is None else context[i : i + 1])
        rows.append(torch.autograd.grad(log_prob.sum(), base.theta)[0].flatten())
    assert torch.allclose(base.tangents(x, context), torch.stack(rows), atol=1e-12)
    assert torch.stack(rows).abs().max() > 1e-3


def test_parameters_move_to_larger_lattices() -> None:
    small = MultiscaleSpins.of(XY((8, 8), 0.8), n_near=4)
    with torch.no_grad():
        small.theta.add_(0.1 * torch.randn(small.theta.shape, generator=seeded(), dtype=torch.float64))
    x = small.sample(3, generator=seeded())
    same = small.transferred(Lattice((8, 8)))
    assert torch.equal(same.log_prob(x), small.log_prob(x))
    action = XY((16, 16), 0.8)
    moved, fresh = small.transferred(Lattice((16, 16))), MultiscaleSpins.of(action, n_near=4)
    last = slice(-moved.sizes[-1], None)
    assert torch.equal(moved.theta[:, last], small.theta[:, -small.sizes[-1] :])
    trained_small = trained(MultiscaleSpins.of(XY((8, 8), 0.8), n_near=4), XY((8, 8), 0.8), 5, 1000)
    deviations = []
    for base in (trained_small.transferred(Lattice((16, 16))), fresh):  # type: ignore[operator]
        y, log_prob = base.sample_with_log_prob(500, generator=seeded(2))
        deviations.append(float((-action(y) - log_prob).std()))
    assert deviations[0] < 0.6 * deviations[1]


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_normaliser_of_every_dimension(n: int) -> None:
    kappa = np.array([1e-3, 0.5, 3.0, n + 19.9, n + 20.1, 1e3, 1e5])
    squared = torch.tensor(kappa**2)
    expected = n / 2 * np.log(2 * np.pi) + np.log(ive(n / 2 - 1, kappa)) + kappa - (n / 2 - 1) * np.log(kappa)
    np.testing.assert_allclose(log_normaliser(n, squared).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        mean_over_field(n, squared).numpy() * kappa, ive(n / 2, kappa) / ive(n / 2 - 1, kappa), rtol=1e-12
    )
    u = torch.tensor([0.0, 1e-12, 0.3, 40.0, 900.0], dtype=torch.float64, requires_grad=True)
    first = torch.autograd.grad(log_normaliser(n, u).sum(), u, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), u)[0]
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert float(first[0].detach()) == pytest.approx(1 / (2 * n))
    assert float(second[0]) == pytest.approx(-1 / (2 * n * n * (n + 2)))
    assert torch.autograd.gradgradcheck(lambda v: log_normaliser(n, v), u[2:].detach().requires_grad_())


# ------------------------------------------------------------------------------------------------------------ training


def trained(distribution: Distribution, action: XY | ON, n_steps: int, n_samples: int) -> Distribution:
    update, problem = NaturalGradient(n_samples, damping=1e-3), Problem(distribution, action)
    state, generator = update.init(problem), seeded()
    for step in range(n_steps):
        state, _ = update.step(problem, state, (step + 1) / n_steps, generator)
    return distribution


@pytest.mark.parametrize(
    ("action", "log_z"),
    [
        (XY((2, 2), 1.0), on_square(2, 1.0).log_z),
        (ON((2, 2), 3, 1.0), on_square(3, 1.0).log_z),
        (XY((4, 4), 1.0), 40.0535144032),
    ],
    ids=str,
)
def test_training_finds_the_exact_partition_function(action: XY | ON, log_z: float) -> None:
    recipe = SpinContinuous(n_powers=1, radius=1.0, pair_radius=1.5, n_near=4)
    flow = trained(recipe.build(action), action, 6, 1000)
    exact = refined(flow, tolerance=1e-3)  # type: ignore[arg-type]
    weights = reweight(exact, action, 4000, seeded(5)).log_weights
    assert effective_sample_size(weights).value > 0.9
    scaled = (weights - weights.max()).exp()
    estimate = float(scaled.mean().log() + weights.max())
    error = float(scaled.std() / scaled.mean()) / len(scaled) ** 0.5
    assert abs(estimate - log_z) < 4 * error + 1e-3


def test_draws_by_rejection_are_not_differentiated() -> None:
    action = XY((2, 2), 1.0)
    problem = Problem(SpinContinuous(n_powers=1, radius=1.0).build(action), action)
    with pytest.raises(ValueError, match="use NaturalGradient or LogVariance"):
        ReverseKL()(problem, 8, seeded())
    assert LogVariance()(problem, 8, seeded()).value.requires_grad
    problem.flow.base.requires_grad_(False)
    assert ReverseKL()(problem, 8, seeded()).value.requires_grad


def test_recipes_on_trees_and_independent_spins_learn() -> None:
    action = XY((3, 3), 0.6)
    for base in ("trees", "uniform"):
        recipe = SpinContinuous(n_powers=1, radius=1.0, base=base, n_times=2, n_steps=4)
        flow = trained(recipe.build(action), action, 5, 600)
        x, log_prob = flow.sample_with_log_prob(2000, generator=seeded(3))
        assert effective_sample_size(-action(x) - log_prob).value > 0.8


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SpinContinuousFlow(FieldSpace(Lattice((4, 4)))), TypeError, "angles or unit vectors"),
        (lambda: SpinContinuousFlow(FieldSpace(Lattice((4, 4)), Real(3))), TypeError, "angles or unit vectors"),
        (lambda: SpinContinuousFlow(FieldSpace(Lattice((4,)), Circle()), n_steps=0), ValueError, "n_steps >= 1"),
        (lambda: SpinContinuousFlow(FieldSpace(Lattice((4,)), Circle()), method="euler"), ValueError, "rk4"),
        (lambda: SpinFlowSpec(n_powers=0), ValueError, "n_powers"),
        (lambda: SpinFlowSpec(n_context=-1), ValueError, "n_context >= 0"),
        (lambda: SpanningTrees(FieldSpace(Lattice((4,)), Circle()), math.nan), ValueError, "finite kappa"),
        (lambda: SpanningTrees.of(White(FieldSpace(Lattice((4,))))), ValueError, "expected XY or ON"),  # type: ignore[arg-type]
        (lambda: MultiscaleSpins.of(None), ValueError, "expected XY or ON"),  # type: ignore[arg-type]
        (lambda: MultiscaleSpins(FieldSpace(Lattice((4,)))), TypeError, "angles or unit vectors"),
        (lambda: MultiscaleSpins(FieldSpace(Lattice((1,)), Circle())), ValueError, "at least two sites"),
        (lambda: Multiscale(Lattice((4,)), n_orbits=0), ValueError, "n_orbits >= 1"),
        (lambda: SpinContinuous(base="gaussian"), ValueError, "multiscale, trees, uniform"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
