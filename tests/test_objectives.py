"""Objectives against each other and against closed forms: same mean gradients, no noise where none should be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flows.architectures.gauge_coupling import GaugeCoupling
from flows.objectives import ForwardKL, LogVariance, Objective, ReverseKL
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.action import ActionFamily
from lattices.theories.su_n_gauge import SUNGauge
from tests.tiny_flows import FIELD, Affine, Quadratic, SinhArcsinh, WrongScore, generator, gradient, optimum, problem

PATH, PLAIN = ReverseKL(), ReverseKL(path_gradient=False)
LOG_Z = FIELD.lattice.volume * math.log(2 * math.pi / Quadratic.mass_squared) / 2


def gradients(objective: Objective, of: Problem, n_batches: int = 150, n: int = 64) -> Tensor:
    """Gradients of many batches, the same samples for every objective.  -> (n_batches, n_parameters)"""
    rows = [gradient(of, objective(of, n, generator(seed)).value) for seed in range(n_batches)]
    return torch.stack(rows)


def z_scores(difference: Tensor) -> Tensor:  # (n_batches, n_parameters) -> (n_parameters,)
    return difference.mean(0) / (difference.std(0) / len(difference) ** 0.5)


@pytest.mark.parametrize("trainable_base", [False, True])
def test_path_gradient_equals_reparametrised_gradient_in_the_mean(trainable_base: bool) -> None:
    of = problem(Affine(), SinhArcsinh(), trainable_base=trainable_base)
    path, plain = gradients(PATH, of), gradients(PLAIN, of)
    assert (path.mean(0).abs() > 10 * path.std(0) / len(path) ** 0.5).all()  # there is something to compare
    assert (path - plain).abs().max() > 1e-2  # and the two estimators differ
    assert z_scores(path - plain).abs().max() < 4


def test_a_wrong_score_is_noticed() -> None:
    of = problem(WrongScore())
    assert z_scores(gradients(PATH, of) - gradients(PLAIN, of)).abs().max() > 8


def test_gradients_at_a_perfect_flow() -> None:
    of = optimum()
    assert gradients(PATH, of, 5).abs().max() < 1e-12
    assert gradients(LogVariance(), of, 5).abs().max() < 1e-12
    plain = gradients(PLAIN, of)
    assert plain.std(0).min() > 1e-2
    assert z_scores(plain).abs().max() < 4


@pytest.mark.parametrize("objective", [PATH, PLAIN], ids=["path", "plain"])
def test_reverse_kl_is_minus_log_z_at_a_perfect_flow(objective: ReverseKL) -> None:
    loss = objective(optimum(), 8, generator())
    assert loss.value.item() == pytest.approx(-LOG_Z, abs=1e-12)
    torch.testing.assert_close(loss.log_weights, torch.full((8,), LOG_Z, dtype=torch.float64))


def test_paths_on_a_group_have_the_gradient_of_reverse_kl() -> None:
    action = SUNGauge((2, 2), n=2, beta=2.0)
    flow = GaugeCoupling(n_cycles=1, moves="residual", hidden=(2,)).build(action)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator(1), dtype=parameter.dtype)
    of = Problem(flow, action)
    plain, path = (gradients(objective, of, 30, 32) for objective in (PLAIN, PATH))
    moved = path.std(0) > 1e-9  # some coefficients cancel on a lattice this small
    plain, path = plain[:, moved], path[:, moved]
    assert z_scores(plain - path).square().mean().sqrt() < 2
    assert z_scores(plain - 2 * path).square().mean().sqrt() > 4


def test_path_and_plain_see_the_same_samples() -> None:
    of = problem(Affine(), SinhArcsinh(), trainable_base=True)
    first, second = generator(), generator()
    path, plain = PATH(of, 16, first), PLAIN(of, 16, second)
    torch.testing.assert_close(path.value, plain.value)
    torch.testing.assert_close(path.log_weights, plain.log_weights)
    assert torch.equal(first.get_state(), second.get_state())


def test_log_variance_gradient_is_twice_that_of_reverse_kl_in_the_mean() -> None:
    of = problem(Affine(), SinhArcsinh())
    assert z_scores(gradients(LogVariance(), of) - 2 * gradients(PATH, of)).abs().max() < 4
    assert z_scores(gradients(LogVariance(), of) - gradients(PATH, of)).abs().max() > 8


def test_forward_kl_is_lowest_at_the_target() -> None:
    at, away = optimum(), problem()
    samples = at.flow.sample(4000, generator=generator(5)).detach()
    objective = ForwardKL(samples)
    assert objective(away, 500, generator()).value > objective(at, 500, generator()).value + 1
    slopes = gradients(objective, at)  # noise of the batches, and of the finite data they are drawn from
    error = slopes.std(0) * 64**0.5 * (1 / len(samples) + 1 / (64 * len(slopes))) ** 0.5
    assert (slopes.mean(0) / error).abs().max() < 4
    assert (gradients(objective, away).mean(0) / error).abs().max() > 20
    torch.testing.assert_close(objective(at, 8, generator()).log_weights, torch.full((8,), LOG_Z).double())


@pytest.mark.parametrize("objective", [PATH, PLAIN, LogVariance(), ForwardKL(torch.randn(9, 2, 2).double())], ids=str)
def test_objectives_are_pure(objective: Objective) -> None:
    of = problem(Affine(), SinhArcsinh(), trainable_base=False)
    before = {name: p.clone() for name, p in of.flow.named_parameters()}
    flags = {name: p.requires_grad for name, p in of.flow.named_parameters()}
    loss = objective(of, 8, generator())
    assert loss.value.shape == ()
    assert loss.value.requires_grad
    assert loss.log_weights.shape == (8,)
    assert loss.log_weights.dtype == torch.float64
    assert not loss.log_weights.requires_grad
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in of.flow.named_parameters())
    assert flags == {name: p.requires_grad for name, p in of.flow.named_parameters()}
    assert torch.equal(loss.value, objective(of, 8, generator()).value)


class Wells(ActionFamily):
    names = ("quadratic", "linear")
    field = FIELD

    def operators(self, x: Tensor) -> Tensor:
        return torch.stack([x.square().flatten(1).sum(1) / 2, x.flatten(1).sum(1)], -1)

    def at(self, couplings: Tensor) -> Quadratic:
        raise NotImplementedError

    @classmethod
    def examples(cls):  # type: ignore[no-untyped-def]
        yield cls()


@pytest.mark.parametrize("objective", [PATH, PLAIN, LogVariance()], ids=str)
def test_families_are_evaluated_at_the_drawn_couplings(objective: Objective) -> None:
    def couplings(n: int, generator: torch.Generator) -> Tensor:
        return 1 + torch.rand(n, 2, generator=generator, dtype=torch.float64)

    of = Problem(optimum().flow, Wells(), couplings)
    of.flow.n_context = 2  # it ignores them
    drawn = generator()
    context = couplings(8, drawn)
    x, log_prob = of.flow.sample_with_log_prob(8, context, drawn)
    expected = -(context[:, 0] * x.square().flatten(1).sum(1) / 2 + context[:, 1] * x.flatten(1).sum(1)) - log_prob
    torch.testing.assert_close(objective(of, 8, generator()).log_weights, expected.detach())


def test_mistakes_are_explained() -> None:
    for objective in (PATH, PLAIN, LogVariance(), ForwardKL(torch.zeros(4, 2, 2))):
        with pytest.raises(ValueError, match="expected at least 2 samples, got 1"):
            objective(problem(), 1, generator())
    with pytest.raises(ValueError, match="couplings for each of 4 samples, got 3"):
        ForwardKL(torch.zeros(4, 2, 2), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="pass both or none"):
        ForwardKL(torch.zeros(4, 2, 2), torch.zeros(4, 1))(problem(), 2, generator())
    for wrong in ({"learning_rate": -1.0}, {"batch_size": 1}, {"clip_norm": 0.0}, {"warm_up": 1.0}):
        with pytest.raises(ValueError, match=f"expected .*{next(iter(wrong))}"):
            GradientUpdate(**wrong)  # type: ignore[arg-type]
    for wrong in ({"optimiser": "newton"}, {"schedule": "stairs"}):
        with pytest.raises(ValueError, match="choose one of them"):
            GradientUpdate(**wrong)  # type: ignore[arg-type]
    frozen = problem()
    for p in frozen.flow.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="trainable parameters, got none"):
        GradientUpdate().init(frozen)


def test_learning_rate_rises_and_falls() -> None:
    update = GradientUpdate(learning_rate=1.0, warm_up=0.2)
    assert [round(update.rate(t), 12) for t in (0.0, 0.1, 0.2, 0.6, 1.0)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert GradientUpdate(learning_rate=1.0, schedule="constant", warm_up=0.0).rate(0.0) == 1.0


@pytest.mark.parametrize("update", [*GradientUpdate.examples()], ids=lambda u: u.optimiser)
def test_a_step_moves_the_flow_and_clips(update: GradientUpdate) -> None:
    of = problem()
    start = gradient(of, update.objective(of, update.batch_size, generator()).value)
    before = torch.cat([p.detach().flatten() for p in of.flow.bijection.parameters()])
    _, report = update.step(of, update.init(of), 0.5, generator())
    after = torch.cat([p.detach().flatten() for p in of.flow.bijection.parameters()])
    assert report.numbers["gradient_norm"] == pytest.approx(start.norm().item())
    if update.optimiser == "sgd":
        torch.testing.assert_close(before - after, update.rate(0.5) * start / start.norm())
    assert not torch.equal(before, after)
