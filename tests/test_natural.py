"""The natural gradient: exact where the target is in reach, unbiased, blind to what couplings do to log Z."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flows.architectures.continuous import Continuous
from flows.architectures.torus import TorusFlow
from flows.bases import GaussianField, White
from flows.bijection import Bijection, Inverse
from flows.distribution import Transformed
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.layers.fourier import FourierScaling
from flows.layers.gauge_coupling import PlaquetteCoupling
from flows.layers.torus import TorusAutoregressive, torus
from flows.updates.natural import NaturalGradient, sample_tangents
from flows.updates.update import Problem
from lattices.fields import FieldSpace
from lattices.lattice import Lattice
from lattices.statistics import effective_sample_size
from lattices.theories.free_field import FreeField
from lattices.theories.phi4 import Phi4, Phi4Family
from lattices.theories.torus_mixture import TorusMixture
from tests.laws import bijections as laws

BOX = Lattice((4, 4))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(problem: Problem, update: NaturalGradient, n_steps: int) -> list[float]:
    state, generator, losses = update.init(problem), seeded(), []
    for step in range(n_steps):
        state, report = update.step(problem, state, step / n_steps, generator)
        losses.append(report.loss)
    return losses


def gaussian_problem() -> Problem:
    """White noise of a heavy field to the free field of a light one: in reach of the linear term."""
    flow = ContinuousFlow(FieldSpace(BOX), VectorFieldSpec((), n_times=1))
    return Problem(Transformed(GaussianField.free(BOX, 3.0), flow), FreeField((4, 4), mass_squared=0.5))


def test_a_target_in_reach_is_found_without_noise() -> None:
    problem = gaussian_problem()
    train(problem, NaturalGradient(n_samples=256, damping=0.0, decay=0.0), 12)
    x, log_q = problem.flow.sample_with_log_prob(100, generator=seeded(1))
    log_weights = -problem.target.energy(x) - log_q
    assert float(log_weights.detach().std()) < 1e-5  # integration error of 8 steps of rk4


def test_one_step_is_not_enough_and_the_wrong_sign_is_worse() -> None:
    before = train(gaussian_problem(), NaturalGradient(n_samples=256), 1)[0]
    problem = gaussian_problem()
    train(problem, NaturalGradient(n_samples=256, trust=0.1), 1)
    problem.flow.bijection.theta.data *= -1
    after = train(problem, NaturalGradient(n_samples=256), 1)[0]
    assert after > before


def test_the_slope_of_the_regression_is_the_gradient_of_the_divergence() -> None:
    problem = Problem(Continuous(n_times=1, frequencies=(1.0,)).build(Phi4((4, 4), -4.0, 8.0)), Phi4((4, 4), -4.0, 8.0))
    x, log_q, tangents = sample_tangents(problem.flow, 4000, None, seeded())
    residual = (log_q + problem.energy(x)).detach()
    products = tangents * (residual - residual.mean())[:, None]
    flow_x, flow_log_q = problem.flow.sample_with_log_prob(4000, generator=seeded(5))
    gradient = torch.autograd.grad((flow_log_q + problem.energy(flow_x)).mean(), problem.flow.bijection.theta)[0]
    pull = (products.mean(0) - gradient.flatten()) / (products.std(0) / 4000**0.5)
    assert float(pull.abs().max()) < 5  # the other estimator is noisy too
    assert float(gradient.abs().max()) > 10 * float(products.std(0).max()) / 4000**0.5  # else nothing is tested


def test_tangents_of_any_bijection_by_differentiation() -> None:
    layer = FourierScaling(FieldSpace(BOX))
    problem = Problem(Transformed(GaussianField.free(BOX, 3.0), layer), FreeField((4, 4), mass_squared=0.5))
    train(problem, NaturalGradient(n_samples=64, damping=0.0, decay=0.0), 8)
    x, log_q = problem.flow.sample_with_log_prob(50, generator=seeded(1))
    assert float((log_q + problem.energy(x)).detach().std()) < 1e-6


def test_a_conditional_flow_learns_a_family() -> None:
    family = Phi4Family((4, 4), ("kinetic", "mass_squared"))

    def couplings(n: int, generator: torch.Generator) -> Tensor:
        mass_squared = 0.5 + torch.rand(n, generator=generator, dtype=torch.float64)
        return torch.stack([torch.ones_like(mass_squared), mass_squared], 1)

    flow = ContinuousFlow(FieldSpace(BOX), VectorFieldSpec((), n_times=1, n_context=2, context_degree=2))
    problem = Problem(Transformed(GaussianField.free(BOX, 1.0), flow), family, couplings)
    train(problem, NaturalGradient(n_samples=2000, damping=1e-6, decay=0.0), 10)
    for mass_squared in (0.5, 1.0, 1.5):
        context = torch.tensor([[1.0, mass_squared]], dtype=torch.float64).expand(2000, -1)
        x, log_q = flow_samples(problem, context)
        assert effective_sample_size(-family.energy(x, context) - log_q).value > 0.97


def flow_samples(problem: Problem, context: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return problem.flow.sample_with_log_prob(len(context), context, seeded(3))


def test_bad_settings_are_refused() -> None:
    for wrong in ({"n_samples": 1}, {"chunk": 0}, {"damping": -1.0}, {"trust": 0.0}):
        with pytest.raises(ValueError, match="expected n_samples >= 2"):
            NaturalGradient(**wrong)


@pytest.mark.parametrize(
    "layer",
    [TorusAutoregressive(torus(2)), Inverse(TorusAutoregressive(torus(2))), next(PlaquetteCoupling.examples())],
    ids=["closed", "root", "links"],
)
def test_tangents_of_any_layer_are_derivatives_sample_by_sample(layer: Bijection) -> None:
    flow = Transformed(White(layer.domain), laws.perturbed(layer, seeded(), 0.3))
    with torch.no_grad():
        x, _, tangents = sample_tangents(flow, 4, None, seeded(1))
    for one, row in zip(x, tangents):
        exact = torch.autograd.grad(flow.log_prob(one[None])[0], list(flow.parameters()))
        torch.testing.assert_close(row, torch.cat([g.flatten() for g in exact]), rtol=1e-9, atol=1e-9)


def test_three_modes_on_a_torus_in_seconds() -> None:
    action = TorusMixture()
    flow = TorusFlow(n_layers=1, n_bins=3).build(action)
    train(Problem(flow, action), NaturalGradient(n_samples=512, chunk=512, trust=0.1, damping=1e-3), 40)
    with torch.no_grad():
        x, log_q = flow.sample_with_log_prob(20_000, generator=seeded(1))
        excess = log_q + action.energy(x) + action.log_z()
    assert abs(excess.mean()) < 1e-3 + 4 * excess.std() / 20_000**0.5
