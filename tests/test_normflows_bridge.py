"""normflows in our flows and our flows in normflows: same numbers, same gradients, more precise sums."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from normflows import NormalizingFlow
from normflows.distributions import DiagGaussian, UniformGaussian
from normflows.flows import CoupledRationalQuadraticSpline, Flow, Permute
from torch import Tensor

from flows.architectures.coupling import CouplingFlow
from flows.bases import White
from flows.bijection import Bijection, Chain, Inverse
from flows.distribution import Transformed
from flows.layers.coupling import Coupling
from flows.normflows_bridge import DistributionFromNormflows, FromNormflows, to_normflows
from lattices.fields import FieldSpace
from lattices.lattice import Lattice
from lattices.theories.phi4 import Phi4
from tests.laws import bijections as laws
from tests.laws.distributions import knows_its_samples, well_formed

LATTICE = Lattice((4, 4))
ACTION = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flow() -> Transformed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return laws.perturbed(CouplingFlow(n_layers=2, hidden=(3, 2)).build(ACTION), seeded())


def their_spline(n_context: int | None = None) -> FromNormflows:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = CoupledRationalQuadraticSpline(16, 1, 8, num_context_channels=n_context)
        return FromNormflows(layer.double(), FieldSpace(LATTICE))


class Nothing(Flow):
    """The identity with the log-det written as the number 0."""

    def forward(self, z: Tensor) -> tuple[Tensor, int]:
        return z, 0

    inverse = forward


def test_our_flow_is_a_normflows_model() -> None:
    ours = flow()
    theirs = to_normflows(ours, ACTION)
    assert isinstance(theirs, NormalizingFlow)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        x, log_prob = theirs.sample(6)
    torch.testing.assert_close(log_prob, ours.log_prob(x), rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(theirs.log_prob(x), ours.log_prob(x), rtol=1e-13, atol=1e-12)


def test_it_trains_there_as_here() -> None:
    ours = flow()
    parameters = list(ours.parameters())
    with torch.random.fork_rng():
        torch.manual_seed(4)
        loss = to_normflows(ours, ACTION).reverse_kld(64)
        torch.manual_seed(4)
        x, log_prob = ours.sample_with_log_prob(64)
    expected = (log_prob + ACTION.energy(x)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)):
        torch.testing.assert_close(a, b)
    maximum_likelihood = to_normflows(ours).forward_kld(x.detach())
    assert maximum_likelihood.item() == pytest.approx(-ours.log_prob(x).mean().item(), rel=1e-5)


def test_our_sum_of_log_dets_keeps_the_precision_that_theirs_loses() -> None:
    ours = flow()
    z = ours.base.sample(32, generator=seeded())
    exact = sum(layer(z_l)[1] for layer, z_l in zip(ours.bijection.layers, _inputs(ours.bijection, z)))
    assert (ours.bijection(z)[1] - exact).abs().max() < 1e-14
    assert (to_normflows(ours).forward_and_log_det(z)[1] - exact).abs().max() > 1e-9


def _inputs(chain: Bijection, z: Tensor) -> list[Tensor]:
    fields = [z]
    for layer in chain.layers:
        fields.append(layer(fields[-1])[0])
    return fields


@pytest.mark.parametrize(
    "law", [law for law in laws.BIJECTION_LAWS if law is not laws.follows_device], ids=lambda law: law.__name__
)
def test_their_spline_keeps_our_laws(law: laws.Law) -> None:
    law(their_spline(), seeded())


def test_context_reaches_layers_that_take_it() -> None:
    layer, z, context = their_spline(n_context=2), torch.randn(3, 4, 4, generator=seeded()).double(), torch.eye(3, 2)
    moved = laws.perturbed(layer, seeded())
    assert laws.gap(layer.domain, moved(z, context.double())[0], moved(z, -context.double())[0]) > 1e-4
    plain = FromNormflows(Nothing(), FieldSpace(LATTICE))
    assert torch.equal(plain(z, context)[0], z)


@pytest.mark.parametrize("layer", [Nothing(), Permute(16, mode="swap")], ids=repr)
def test_log_dets_are_one_per_sample_in_the_dtype_of_the_field(layer: Flow) -> None:
    bijection = FromNormflows(layer, FieldSpace(LATTICE))
    for dtype in (torch.float32, torch.float64):
        _, log_det = bijection(torch.zeros(3, 4, 4, dtype=dtype))
        assert torch.equal(log_det, torch.zeros(3, dtype=dtype))


def test_mixed_chain_has_the_right_density() -> None:
    ours = next(Coupling.examples())
    chain = Chain(ours, their_spline(), Inverse(ours))
    laws.log_det_is_jacobian(chain, seeded())
    laws.round_trip(chain, seeded())
    knows_its_samples(Transformed(White(ours.domain), chain), seeded())


def test_their_bases_are_distributions() -> None:
    for base in (DiagGaussian((4, 4), trainable=False), DiagGaussian(16)):
        wrapped = DistributionFromNormflows(base.double(), FieldSpace(LATTICE), shape=base.shape)
        well_formed(wrapped, seeded())
        x = wrapped.sample(3, generator=seeded())
        torch.testing.assert_close(wrapped.log_prob(x), White(FieldSpace(LATTICE)).log_prob(x))
    well_formed(DistributionFromNormflows(UniformGaussian(4, [0, 1]).double(), FieldSpace(Lattice((2, 2)))), seeded())


@pytest.mark.parametrize(
    "make",
    [lambda: FromNormflows(torch.nn.Tanh(), FieldSpace(LATTICE)), lambda: DistributionFromNormflows(3, LATTICE)],  # type: ignore[arg-type]
    ids=["layer", "distribution"],
)
def test_mistakes_are_explained(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="expected a normflows"):
        make()
