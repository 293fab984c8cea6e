"""The continuous flow: integration orders, kernels, transfer to other lattices, and tangents of its parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flows.bases import GaussianField
from flows.bijection import Chain
from flows.distribution import Transformed
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.layers.integration import integrate, tableau
from flows.layers.kernels import OrbitKernels
from lattices.fields import Circle, FieldSpace, Real
from lattices.invariance import ColourPermutations, PointGroup
from lattices.lattice import Lattice

SQUARE = FieldSpace(Lattice((4, 4)))
LAYERS = [pytest.param(flow, id=str(i)) for i, flow in enumerate(ContinuousFlow.examples())]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(flow: ContinuousFlow, scale: float = 0.1) -> ContinuousFlow:
    with torch.no_grad():
        flow.theta.copy_(scale * torch.randn(flow.theta.shape, generator=seeded(1), dtype=flow.theta.dtype))
    return flow


def couplings(flow: ContinuousFlow, n: int) -> Tensor | None:
    return torch.randn(n, flow.spec.n_context, generator=seeded(2)).double() if flow.spec.n_context else None


@pytest.mark.parametrize("method", ["rk4", "dopri5", "dop853"])
def test_integrators_have_their_order(method: str) -> None:
    def rates(t: float, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (math.cos(t) * state[0],)  # y = exp(sin t)

    counts = (2, 4) if method == "dop853" else (8, 16)
    start = (torch.ones(1, dtype=torch.float64),)
    ends = [integrate(rates, start, (0.0, 2.0), n, method)[0] for n in counts]
    errors = [abs(float(end) - math.exp(math.sin(2.0))) for end in ends]
    slope = math.log2(errors[0] / errors[1])
    assert slope > tableau(method).order - 0.5
    assert not slope > tableau(method).order + 2.5  # a constant error would give 0, noise anything


def test_doubling_the_steps_measures_the_integration_error() -> None:
    flow = randomised(ContinuousFlow(SQUARE, n_steps=8))
    base = GaussianField.free(SQUARE.lattice, mass_squared=1.0)
    z = base.sample(16, generator=seeded())
    with torch.no_grad():
        x, log_q = flow(z)[0], base.log_prob(z) - flow(z)[1]
        truth = (log_q - Transformed(base, flow.refined(8, "dop853")).log_prob(x)).abs()
    measured = flow.integration_error(z, log_prob=base.log_prob)
    assert torch.allclose(measured, truth, rtol=0.3, atol=1e-2 * float(truth.max()))
    assert float(truth.max()) > 1e-6  # there is something to measure
    assert float(flow.refined(32).integration_error(z, log_prob=base.log_prob).mean()) < float(truth.mean()) / 4**3


@pytest.mark.parametrize("kernels", list(OrbitKernels.examples()), ids=str)
def test_kernels_average_over_orbits(kernels: OrbitKernels) -> None:
    lattice = kernels.lattice
    real = torch.fft.irfftn(kernels.spectrum().to(torch.complex128), s=lattice.extents, dim=lattice.axes)
    assert torch.allclose(real.flatten(1).sum(1), torch.ones(len(real), dtype=torch.float64))
    field = FieldSpace(lattice)
    for g in PointGroup().generators(field):
        assert torch.allclose(g.apply(real, field), real, atol=1e-14)
    assert int((real.abs() > 1e-12).sum(0).max()) == 1  # orbits are disjoint
    if kernels.radius is None:
        assert float(real.abs().sum(0).min()) > 0  # and cover the box


@pytest.mark.parametrize("flow", LAYERS)
def test_tangents_are_derivatives_of_log_density(flow: ContinuousFlow) -> None:
    flow = randomised(flow).refined(64, "rk4")
    base = GaussianField(flow.domain, 0.5 / (1.0 + flow.domain.lattice.laplacian_spectrum()))
    context = couplings(flow, 3)
    z = base.sample(3, generator=seeded())
    pushed, tangents = flow.push_tangents(z, base.score(z), context)

    def log_prob(theta: Tensor) -> Tensor:
        moved = flow.refined(flow.n_steps)
        moved.theta = torch.nn.Parameter(theta)
        return Transformed(base, moved).log_prob(pushed.x, context)

    direction = torch.randn(flow.theta.shape, generator=seeded(3), dtype=torch.float64)
    epsilon = 1e-4
    with torch.no_grad():
        theta = flow.theta.detach()
        slope = (log_prob(theta + epsilon * direction) - log_prob(theta - epsilon * direction)) / (2 * epsilon)
    predicted = tangents @ direction.flatten()
    assert torch.allclose(predicted, slope, rtol=1e-2, atol=1e-2)  # trapezoidal rule, h = 1/64
    assert not torch.allclose(-predicted, slope, rtol=1e-2, atol=1e-2)


def test_transfer_keeps_the_map_of_fields_that_repeat() -> None:
    small = randomised(ContinuousFlow(SQUARE, VectorFieldSpec(radius=1.5, tails=(0.8,), n_times=2)))
    large = small.transferred(Lattice((8, 8)), radius=1.5)
    z = SQUARE.random(5, seeded())
    tiled = large(z.repeat(1, 2, 2))[0]
    assert torch.allclose(tiled, small(z)[0].repeat(1, 2, 2), atol=1e-12)
    local = randomised(ContinuousFlow(SQUARE, VectorFieldSpec(radius=1.5, n_times=2)))  # no images of K at 0
    wide = local.transferred(Lattice((8, 8)), radius=1.5)
    assert torch.allclose(wide(z.repeat(1, 2, 2))[1], 4 * local(z)[1], atol=1e-10)


def test_transfer_to_a_longer_range_changes_nothing() -> None:
    small = randomised(ContinuousFlow(SQUARE, VectorFieldSpec(radius=1.0, n_times=2)))
    z = FieldSpace(Lattice((6, 6))).random(3, seeded())
    near, far = (small.transferred(Lattice((6, 6)), radius)(z) for radius in (1.0, None))
    assert torch.allclose(near[0], far[0])
    assert torch.allclose(near[1], far[1])


BLOCKED = [flow for flow in ContinuousFlow.examples() if flow.blocking]


@pytest.mark.parametrize("flow", BLOCKED, ids=lambda flow: flow.spec.blocking)
def test_a_blocking_keeps_the_block_field(flow: ContinuousFlow) -> None:
    z, d = flow.domain.random(5, seeded()), flow.domain.lattice.dimension
    free = ContinuousFlow(flow.domain, replace(flow.spec, blocking=None, modulations=()), 2)
    for layer, kept in ((randomised(flow), True), (randomised(free), False)):
        for map_ in (layer.forward, layer.inverse):
            moved = map_(z, couplings(flow, 5))[0]
            assert (moved - z).abs().max() > 1e-2
            assert ((flow.blocking.down(moved - z, d)).abs().max() < 1e-12) == kept


@pytest.mark.parametrize("flow", [f for f in BLOCKED if f.spec.modulations], ids=lambda flow: flow.spec.blocking)
def test_modulations_extend_the_flow_without_them(flow: ContinuousFlow) -> None:
    plain = randomised(ContinuousFlow(flow.domain, replace(flow.spec, modulations=()), 2))
    wide = ContinuousFlow(flow.domain, flow.spec, 2)
    unmodulated = torch.cat([(wide.nu == 0).flatten().repeat(len(wide.smooth)), torch.tensor([True])])
    with torch.no_grad():
        wide.theta[:, :, unmodulated] = plain.theta
    z, context = flow.domain.random(3, seeded()), couplings(flow, 3)
    torch.testing.assert_close(wide(z, context), plain(z, context))
    randomised(wide)
    assert not torch.allclose(wide(z, context)[0], plain(z, context)[0], atol=1e-3)


def test_colours_commute_with_permutations_and_with_no_other_rotation() -> None:
    spec = VectorFieldSpec((0.8,), radius=1.0, n_times=1, colours=3)
    flow = randomised(ContinuousFlow(FieldSpace(Lattice((3, 2)), Real(2)), spec, 2))
    z = flow.domain.random(3, seeded())
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    assert not torch.allclose(flow(z @ turn)[0], flow(z)[0] @ turn, atol=1e-4)
    swap = ColourPermutations(3).generators(flow.domain)[0]
    assert torch.allclose(flow(swap.apply(z, flow.domain))[0], swap.apply(flow(z)[0], flow.domain))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="field in Real"):
        ContinuousFlow(FieldSpace(Lattice((4, 4)), Circle()))
    with pytest.raises(ValueError, match="n_steps >= 1"):
        ContinuousFlow(SQUARE, n_steps=-1)
    with pytest.raises(ValueError, match="rk4, dopri5, dop853"):
        ContinuousFlow(SQUARE, method="euler")(SQUARE.random(1, seeded()))
    plain, conditional = (ContinuousFlow(SQUARE, VectorFieldSpec(n_context=n)) for n in (0, 1))
    base, coupling = GaussianField.free(SQUARE.lattice, mass_squared=1.0), torch.zeros(1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected 0 couplings"):
        Transformed(base, plain).sample(1, coupling)
    with pytest.raises(ValueError, match="expected context of shape"):
        Transformed(base, Chain(plain, conditional)).sample(1)
    assert Transformed(base, Chain(plain, conditional)).sample(1, coupling).isfinite().all()
    with pytest.raises(ValueError, match="expected a blocking"):
        VectorFieldSpec(modulations=(1.0,))
    with pytest.raises(ValueError, match="3 or more colours"):
        VectorFieldSpec(colours=2)
    with pytest.raises(ValueError, match="divisible by 2"):
        ContinuousFlow(FieldSpace(Lattice((3, 4))), VectorFieldSpec(blocking="average"))
    with pytest.raises(ValueError, match="radius >= 0"):
        OrbitKernels(Lattice((4, 4)), radius=-1)
