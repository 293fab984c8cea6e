"""The continuous flow of links beyond its laws: divergence, tangents, transfer, training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flows.bases import White
from flows.distribution import Transformed
from flows.layers.cell_kernels import CellKernels
from flows.layers.gauge_continuous import GaugeContinuousFlow, GaugeFlowSpec
from flows.layers.lie_integration import integrate_links
from flows.layers.pair_features import pair_gradient, pair_laplacians
from flows.layers.plaquette_features import from_coordinates, loop_features, plaquette_features, to_coordinates
from flows.sampling.density import Conditioned
from flows.sampling.reweighting import reweight
from flows.trained import refined
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.exact import gauge_torus_log_z
from lattices.fields import FieldSpace, Links
from lattices.lattice import Lattice
from lattices.loops import CHAIR, RECTANGLE
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.wilson import WilsonFamily, link_field
from symmetries.lie import SU3

SPEC = GaugeFlowSpec(n_powers=2, radius=1.0, n_times=1)
CASES = {
    "U(1) 2d": (1, (3, 4), SPEC),
    "U(1) 4d": (1, (2, 2, 3, 2), replace(SPEC, radius=0.8)),
    "SU(2) 3d": (2, (3, 3, 3), replace(SPEC, radius=0.8, pairs=True)),
    "SU(3) 2d": (3, (3, 3), replace(SPEC, pairs=True, loops=(RECTANGLE,))),
    "SU(4) 2d": (4, (2, 2), SPEC),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_flow(n: int, extents: tuple[int, ...], spec: GaugeFlowSpec, scale: float = 0.1) -> GaugeContinuousFlow:
    flow = GaugeContinuousFlow(link_field(extents, n), spec, n_steps=4)
    with torch.no_grad():
        flow.theta.copy_(scale * torch.randn(flow.theta.shape, generator=seeded(), dtype=torch.float64))
    return flow


def divergences(flow: GaugeContinuousFlow, u: Tensor, step: float = 1e-4) -> tuple[float, float]:
    """Σ_la ∂_la v_la of one field by central differences, all in one batch, and the closed form."""
    field, coefficients = flow.domain, flow.coefficients(0.3)
    cells = field.event_shape[: 1 + field.lattice.dimension]
    dim = to_coordinates(field, torch.zeros_like(u)).shape[-1]
    units = step * torch.eye(math.prod(cells) * dim, dtype=torch.float64).reshape(-1, *cells, dim)
    shifts = from_coordinates(field, units, u.dtype)

    def diagonal(sign: int) -> Tensor:
        moved = field.exp(u.expand(len(shifts), *u.shape[1:]), sign * shifts)
        velocity = flow._velocity(coefficients, flow._situation(moved))[0]
        return velocity.flatten(1).diagonal().sum()

    closed = flow._velocity(coefficients, flow._situation(u))[1]
    return float(diagonal(1) - diagonal(-1)) / (2 * step), float(closed)


@torch.no_grad()
@pytest.mark.parametrize("case", list(CASES))
def test_divergence_is_the_sum_of_derivatives(case: str) -> None:
    flow = random_flow(*CASES[case])
    numeric, closed = divergences(flow, flow.domain.random(1, seeded(1)))
    assert abs(numeric - closed) < 1e-6 * (1 + abs(closed))
    strength = flow.domain.random(1, seeded(2))
    assert abs(divergences(flow, strength)[0] - closed) > 1e-3  # it does depend on the field


@torch.no_grad()
def test_a_wrong_laplacian_is_noticed() -> None:
    flow = random_flow(*CASES["SU(3) 2d"])
    u = flow.domain.random(1, seeded(1))
    numeric, closed = divergences(flow, u)
    loops = plaquette_features(flow.domain, u, 1).loops
    assert loops is not None
    forgotten = pair_laplacians(loops)[0, 1] * flow._split(flow.coefficients(0.3))[3][0, 1]
    assert abs(numeric - (closed - float(forgotten))) > 1e-4


def test_pairs_are_rectangles_and_chairs() -> None:
    for n, extents in ((3, (3, 4)), (2, (3, 3, 3))):
        field = link_field(extents, n)
        u = field.random(2, seeded())
        loops = plaquette_features(field, u, 1).loops
        assert loops is not None
        laplacians = pair_laplacians(loops)
        for kind, loop in ((0, RECTANGLE), (2, CHAIR)):
            if kind < laplacians.shape[1]:
                unit = torch.eye(laplacians.shape[1], dtype=torch.float64)[kind : kind + 1]
                expected = loop_features(field, u, loop)
                assert torch.allclose(pair_gradient(field, u, loops, unit), expected.gradient, atol=1e-13)
                assert torch.allclose(laplacians[:, kind], expected.laplacian)


@pytest.mark.parametrize("case", ["U(1) 2d", "SU(3) 2d"])
def test_tangents_are_derivatives_of_log_density(case: str) -> None:
    n, extents, spec = CASES[case]
    flow = random_flow(n, extents, replace(spec, n_times=2), 0.05).refined(24, "rk4")
    base = White(flow.domain)
    z = base.sample(2, generator=seeded())
    pushed, tangents = flow.push_tangents(z, base.score(z))

    def log_prob(theta: Tensor) -> Tensor:
        moved = flow.refined(flow.n_steps)
        moved.theta = torch.nn.Parameter(theta)
        return Transformed(base, moved).log_prob(pushed.x)

    direction = torch.randn(flow.theta.shape, generator=seeded(3), dtype=torch.float64)
    epsilon = 1e-4
    with torch.no_grad():
        theta = flow.theta.detach()
        slope = (log_prob(theta + epsilon * direction) - log_prob(theta - epsilon * direction)) / (2 * epsilon)
    predicted = tangents @ direction.flatten()
    assert torch.allclose(predicted, slope, rtol=1e-2, atol=1e-2)  # trapezoidal rule, h = 1/24
    assert not torch.allclose(-predicted, slope, rtol=1e-2, atol=1e-2)


def test_transfer_keeps_the_map_of_fields_that_repeat() -> None:
    small = random_flow(3, (4, 4), replace(SPEC, radius=1.5, pairs=True, n_times=2), 0.05)
    large = small.transferred(Lattice((8, 8)), radius=2.0)
    z = small.domain.random(2, seeded())
    tiled = large(z.repeat(1, 1, 2, 2, 1, 1))
    assert torch.allclose(tiled[0], small(z)[0].repeat(1, 1, 2, 2, 1, 1), atol=1e-12)
    assert torch.allclose(tiled[1], 4 * small(z)[1])
    with pytest.raises(ValueError, match="expected a lattice of 2 axes"):
        small.transferred(Lattice((4, 4, 4)))


@pytest.mark.parametrize("distance", [0.0, 1e-8])
@pytest.mark.parametrize("case", ["U(1) 2d", "SU(3) 2d", "SU(4) 2d"])
def test_identity_links_are_harmless(case: str, distance: float) -> None:
    flow = random_flow(*CASES[case], scale=0.05)
    group = flow.domain.target.group  # type: ignore[attr-defined]
    one = group.identity().expand(2, *flow.domain.event_shape).clone()
    u = flow.domain.exp(one, distance * flow.domain.target.normal(one, seeded()))
    x, log_det, score = flow.push_score(u, torch.zeros_like(u))
    assert all(tensor.isfinite().all() for tensor in (x, log_det, score))
    assert flow.domain.contains(x, 1e-12).all()


def test_links_stay_in_the_group_to_the_order_of_the_method() -> None:
    field = FieldSpace(Lattice((2, 2)), Links(SU3()), "links")
    u, v = field.random(2, seeded()), field.target.normal(field.random(2, seeded(1)), seeded(2))

    def rates(t: float, x: Tensor, _: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        turned = x @ v @ x.mH
        return math.cos(3 * t) * v + turned, (turned.real.flatten(1).square().sum(1),)

    exact = integrate_links(field, rates, (u, (torch.zeros(2).double(),)), (0.0, 0.2), (12, "dop853"))
    for method, order in (("rk4", 4), ("dopri5", 5), ("dop853", 8)):
        errors = []
        for n_steps in (2, 4) if method == "dop853" else (4, 8):
            x, _ = integrate_links(field, rates, (u, (torch.zeros(2).double(),)), (0.0, 0.2), (n_steps, method))
            assert field.contains(x, 1e-12).all()
            errors.append(float((x - exact[0]).abs().max()))
        assert math.log2(errors[0] / errors[1]) > order - 0.5 or errors[1] < 1e-13


@pytest.mark.parametrize("kernels", list(CellKernels.examples()), ids=str)
def test_kernels_cover_every_pair_once(kernels: CellKernels) -> None:
    even, odd = kernels.tensors()
    assert torch.allclose(even.flatten(1).sum(1) / even.shape[1], torch.ones(len(even), dtype=torch.float64))
    assert int((even > 0).sum(0).max()) == 1
    assert torch.all((odd.abs() - even).abs() * odd.abs() < 1e-15)  # ± the even one, or zero
    if kernels.radius is None:
        assert float(even.sum(0).min()) > 0


@pytest.mark.parametrize("case", ["U(1) 2d", "SU(3) 2d"])
def test_jacobians_average_to_one_over_haar_measure(case: str) -> None:
    n, extents, spec = CASES[case]
    flow = random_flow(n, extents, spec, scale=0.015 if n == 1 else 0.1).refined(3, "dop853")
    with torch.no_grad():
        log_det = flow(flow.domain.random(1500, seeded()))[1]
    jacobian = log_det.exp()
    assert float(jacobian.sum() ** 2 / jacobian.square().sum()) > 300
    error = float(jacobian.std()) / len(jacobian) ** 0.5
    assert 1e-4 < error < 0.1
    assert abs(float(jacobian.mean()) - 1) < 4 * error
    assert abs(float((2 * log_det).exp().mean()) - 1) > 4 * error  # a log-det that is twice too large


def test_checkpointed_gradients_are_the_same() -> None:
    n, extents, spec = CASES["SU(3) 2d"]
    z, gradients = link_field(extents, n).random(2, seeded()), []
    for checkpointed in (False, True):
        flow = random_flow(n, extents, replace(spec, checkpointed=checkpointed))
        x, log_det = flow(z)
        (log_det.sum() + x.real.square().sum()).backward()
        gradients.append(flow.theta.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-12)


@pytest.mark.parametrize(("action", "pairs"), [(U1Gauge((3, 3), 1.5), False), (SUNGauge((3, 3), 2, 1.5), True)])
def test_training_finds_the_exact_partition_function(action: U1Gauge | SUNGauge, pairs: bool) -> None:
    spec = GaugeFlowSpec(n_powers=2, radius=1.0, pairs=pairs, n_times=2)
    flow = Transformed(White(action.field), GaugeContinuousFlow(action.field, spec, n_steps=4))
    update, problem, generator = NaturalGradient(n_samples=400, trust=2.0), Problem(flow, action), seeded()
    state = update.init(problem)
    for step in range(5):
        state, _ = update.step(problem, state, step / 5, generator)
    samples = reweight(refined(flow, 1e-3), action, 1500, generator)
    ess, log_z = samples.effective_sample_size(generator), samples.log_z()
    n = 1 if isinstance(action, U1Gauge) else action.n
    assert ess.value > 0.7
    assert abs(log_z.value - gauge_torus_log_z(action.extents, n, action.beta)) < 4 * log_z.error


def test_one_flow_learns_a_range_of_couplings() -> None:
    family = WilsonFamily((3, 3))
    spec = GaugeFlowSpec(n_powers=1, radius=1.0, n_times=2, n_context=1)
    flow = Transformed(White(family.field), GaugeContinuousFlow(family.field, spec, n_steps=4))

    def couplings(n: int, generator: torch.Generator) -> Tensor:
        return 0.2 + torch.rand(n, 1, generator=generator, dtype=torch.float64)

    update, problem, generator = NaturalGradient(n_samples=600, trust=2.0), Problem(flow, family, couplings), seeded()
    state = update.init(problem)
    for step in range(5):
        state, _ = update.step(problem, state, step / 5, generator)
    for beta in (0.4, 1.0):
        at = torch.tensor([beta], dtype=torch.float64)
        samples = reweight(Conditioned(flow, at), family.at(at), 1000, generator)
        log_z = samples.log_z()
        assert samples.effective_sample_size(generator).value > 0.8
        assert abs(log_z.value - gauge_torus_log_z((3, 3), 1, beta)) < 4 * log_z.error + 1e-3


def test_bad_input_is_refused() -> None:
    field = link_field((4, 4), 3)
    with pytest.raises(ValueError, match="expected n_powers"):
        GaugeFlowSpec(n_powers=0)
    with pytest.raises(ValueError, match="expected radius"):
        GaugeContinuousFlow(field, replace(SPEC, radius=-1.0))
    with pytest.raises(ValueError, match="expected n_steps"):
        GaugeContinuousFlow(field, SPEC, n_steps=0)
    with pytest.raises(ValueError, match="sites"):
        GaugeContinuousFlow(link_field((2, 4), 3), replace(SPEC, pairs=True))
    with pytest.raises(ValueError, match="expected SU"):
        GaugeContinuousFlow(link_field((4, 4), 1), replace(SPEC, pairs=True))
    with pytest.raises(ValueError, match="group elements on links"):
        GaugeContinuousFlow(FieldSpace(Lattice((4, 4))), SPEC)
