"""Objectives: pure functions of (problem, n, generator) that say how far a flow is from its target.

Each returns a scalar with a graph and the log-weights log w = -S(x) - log q(x) of n samples of the flow. The value is
-log Z (or the entropy of the data) above the divergence it is named after: at a perfect flow it is not zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from flows.distribution import Distribution, Transformed
from flows.updates.update import Problem


class Loss(NamedTuple):
    """What a step lowers, and the weights of the samples it saw."""

    value: Tensor  # () with a graph
    log_weights: Tensor  # (n,), float64, detached


Objective = Callable[[Problem, int, torch.Generator], Loss]
"""n samples' worth of loss; nothing but the generator changes."""


@dataclass(frozen=True)
class ReverseKL:
    """Reverse Kullback–Leibler divergence: samples of the flow, no samples of the target.

        KL(q|p) - log Z = ⟨log q(x) + S(x)⟩_q,    x = f(z; θ)

    The path gradient ⟨∂x/∂θ · ∇_x [log q + S]⟩ drops the term ⟨∂ log q/∂θ⟩_q = 0: equal in the mean, and free of
    noise at a perfect flow. It costs the score ∇_x log q (no graph) beside one differentiated pass. Blind to modes of
    the target that the flow misses.

    Args:
        path_gradient: False keeps the plain reparametrised gradient.

    References:
        G. Roeder et al., 1703.09194, eq. (7); L. Vaitl et al., 2206.09016 and 2207.08219.
    """

    path_gradient: bool = True

    def __call__(self, problem: Problem, n: int, generator: torch.Generator) -> Loss:
        _require_samples(n)
        _require_differentiable_draws(problem)
        context = problem.context(n, generator)
        return (_path if self.path_gradient else _reparametrised)(problem, n, context, generator)


def _reparametrised(problem: Problem, n: int, context: Tensor | None, generator: torch.Generator) -> Loss:
    x, log_prob = problem.flow.sample_with_log_prob(n, context, generator)
    log_weights = (-problem.energy(x, context) - log_prob).double()
    return Loss(-log_weights.mean(), log_weights.detach())


def _path(problem: Problem, n: int, context: Tensor | None, generator: torch.Generator) -> Loss:
    """Value: the KL estimate; gradient: ∂x/∂θ · (∇_x log q + ∇_x S), both at one and the same latent sample."""
    before = generator.get_state()
    _, (_, log_prob, score) = problem.flow.sample_scored(n, context, generator)
    generator.set_state(before)
    x, _ = problem.flow.sample_with_log_prob(n, context, generator)
    energy = problem.energy(x, context)
    pairing = problem.flow.field.target.cotangent(x.detach(), score)
    pulled = torch.linalg.vecdot(pairing.flatten(1), x.flatten(1)).real + energy
    log_weights = (-energy - log_prob).detach().double()
    surrogate = pulled.double().mean()
    return Loss(surrogate - surrogate.detach() - log_weights.mean(), log_weights)


@dataclass(frozen=True)
class ForwardKL:
    """Forward Kullback–Leibler divergence: minibatches of given target samples; sees modes that the flow misses.

        KL(p|q) + H(p) = -⟨log q(x)⟩_p

    Its log-weights belong to n further samples of the flow, drawn without a graph, so that the effective sample size
    means the same for every objective.

    Args:
        samples: target configurations (n_samples, *event), drawn from with replacement.
        context: their couplings (n_samples, n_couplings) when the flow is conditional.
    """

    samples: Tensor = field(repr=False, compare=False)
    context: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require_samples(len(self.samples))
        if self.context is not None and len(self.context) != len(self.samples):
            raise ValueError(
                f"expected couplings for each of {len(self.samples)} samples, got {len(self.context)}: "
                "pass one row per sample"
            )

    def __call__(self, problem: Problem, n: int, generator: torch.Generator) -> Loss:
        _require_samples(n)
        if (problem.couplings is None) != (self.context is None):
            raise ValueError("expected couplings in the problem and with the samples, got one: pass both or none")
        device = self.samples.device
        chosen = torch.randint(len(self.samples), (n,), generator=generator, device=generator.device).to(device)
        context = None if self.context is None else self.context[chosen]
        value = -problem.flow.log_prob(self.samples[chosen], context).double().mean()
        with torch.no_grad():
            return Loss(value, _reparametrised(problem, n, problem.context(n, generator), generator).log_weights)


@dataclass(frozen=True)
class LogVariance:
    """Variance of the log-weights at detached samples of the flow: needs neither log Z nor the force ∇S.

        Var_q[log w],    log w = -S(x) - log q(x)

    Its gradient is twice that of the reverse KL divergence, estimated by log q(x) alone with the mean as a control
    variate, and vanishes sample by sample at a perfect flow. Differentiates the inverse of the flow. On several ranks
    it is the mean of their variances. With couplings it also asks log Z to be the same everywhere: use `ReverseKL`.

    References:
        L. Richter et al., 2010.10436, eq. (8).
    """

    def __call__(self, problem: Problem, n: int, generator: torch.Generator) -> Loss:
        _require_samples(n)
        flow, context = problem.flow, problem.context(n, generator)
        with torch.no_grad():
            x = flow.sample(n, context, generator)
            energy = problem.energy(x, context)
        z, log_det = flow.bijection.inverse(x, context)
        log_weights = (-energy - log_det - flow.base.log_prob(z, context)).double()
        return Loss(log_weights.var(), log_weights.detach())


def _require_samples(n: int) -> None:
    if n < 2:
        raise ValueError(f"expected at least 2 samples, got {n}: averages and variances need more")


def _require_differentiable_draws(problem: Problem) -> None:
    flow: Distribution = problem.flow
    base = flow.base if isinstance(flow, Transformed) else flow
    if not base.differentiable_draws and any(p.requires_grad for p in base.parameters()):
        raise ValueError(
            f"expected draws that can be differentiated, got a trained {type(base).__name__}: "
            "use NaturalGradient or LogVariance, or freeze the base with requires_grad_(False)"
        )
