"""Natural gradient by regression: fit the log-weights of a batch by the scores of the parameters, and step there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from flows import parallel
from flows.bijection import Bijection, Chain, Scored
from flows.distribution import Distribution, Transformed
from flows.layers.integrated import IntegratedFlow
from flows.updates.update import Problem, Report, Update


class Moments(NamedTuple):
    """Sums over samples of the regression r ≈ c(J) + T δ: columns are (nuisance, tangents, residual)."""

    gram: Tensor  # (n_columns, n_columns), float64
    n: int


@dataclass(frozen=True)
class NaturalGradient(Update):
    """Least-squares natural gradient of the reverse KL divergence.

    With r(x) = log q(x) + S(x) and tangents T(x) = ∂_θ log q(x) at samples of q,

        δ = argmin Σ_i [r_i - c + T_i · δ]² + λ |δ|²_diag(F),     F = ⟨Tᵀ T⟩ - ⟨T⟩ᵀ⟨T⟩,     θ ← θ + η δ,

    which is -F⁻¹ ∇ KL with zero noise where r lies in the span of T: near the optimum the step is exact, which no
    first-order method on samples is. η keeps the KL moved, ½ η² δᵀFδ, below `trust`. For couplings drawn per
    sample, c is a polynomial in them, an estimate of -log Z(J). Cost: one scored pass of `n_samples` (no backward
    pass for continuous flows) and n_samples · P² + P³/3 for P parameters: for flows with P ≲ 5000.

    Args:
        n_samples: samples in each step, over all ranks; a few times P, or the noise P / n_samples shows.
        chunk: samples in memory at a time.
        damping: λ, relative to the mean curvature of a parameter's time-independent part.
        trust: largest KL moved in one step, in nats.
        decay: the last steps average: η shrinks as 1/k once progress exceeds 1 - decay.
    References: Amari (1998); Peters & Schaal (2008), natural gradient as regression on score features.
    """

    n_samples: int = 2048
    chunk: int = 256
    damping: float = 1e-4
    trust: float = 0.5
    decay: float = 0.3

    def __post_init__(self) -> None:
        if self.n_samples < 2 or self.chunk < 1 or not self.damping >= 0 or not self.trust > 0:
            raise ValueError(f"expected n_samples >= 2, chunk >= 1, damping >= 0, trust > 0, got {self}: raise them")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"expected 0 <= decay <= 1, got {self.decay}: pass a fraction of the fit")

    def init(self, problem: Problem) -> dict[str, Any]:
        if not _trained(problem.flow):
            raise ValueError("expected a flow with trainable parameters, got none: unfreeze some, or do not fit it")
        return {"decayed": 0}

    @torch.no_grad()
    def step(
        self, problem: Problem, state: dict[str, Any], progress: float, generator: torch.Generator
    ) -> tuple[dict[str, Any], Report]:
        moments, log_weights = self._measure(problem, generator)
        delta, curvature = self._solve(moments, problem)
        decayed = state["decayed"] + (progress > 1 - self.decay)
        rate = min(1.0, (2 * self.trust / max(curvature, 1e-300)) ** 0.5) / (1 + decayed)
        for parameter, change in zip(_trained(problem.flow), _split(delta, problem.flow)):
            parameter.add_(rate * change)
        numbers = {"rate": rate, "predicted_decrease": curvature / 2, "log_weight_std": float(log_weights.std())}
        return {"decayed": decayed}, Report(-float(log_weights.mean()), log_weights, numbers)

    def _measure(self, problem: Problem, generator: torch.Generator) -> tuple[Moments, Tensor]:
        gram: Tensor | float = 0.0
        log_weights, units = [], None
        own = parallel.share(self.n_samples)
        for start in range(0, own, self.chunk):
            n = min(self.chunk, own - start)
            context = problem.context(n, generator)
            x, log_q, tangents = sample_tangents(problem.flow, n, context, generator)
            residual = log_q + problem.energy(x, context)
            units = units or _units(context)
            columns = torch.cat([_nuisance(context, tangents, units), tangents, residual[:, None]], 1).double()
            gram = gram + columns.T @ columns
            log_weights.append(-residual.double())
        return Moments(parallel.gather(gram[None]).sum(0), self.n_samples), torch.cat(log_weights)  # type: ignore[index]

    def _solve(self, moments: Moments, problem: Problem) -> tuple[Tensor, float]:
        """The damped least-squares step δ and its curvature δᵀ F δ."""
        n_parameters = sum(p.numel() for p in _trained(problem.flow))
        n_nuisance = len(moments.gram) - n_parameters - 1
        gram = moments.gram / moments.n
        head, body = gram[:n_nuisance, :n_nuisance], gram[n_nuisance:, n_nuisance:]
        cross = gram[:n_nuisance, n_nuisance:]
        body = body - cross.T @ torch.linalg.lstsq(head, cross).solution  # project the nuisance columns out
        fisher, slope = body[:-1, :-1], body[:-1, -1]
        ridge = self.damping * _curvature_scale(fisher.diagonal(), problem.flow)
        delta = -torch.linalg.solve(fisher + torch.diag(ridge), slope)
        return delta, float(delta @ fisher @ delta)

    @classmethod
    def examples(cls) -> Iterator[NaturalGradient]:
        """The defaults, and a small one."""
        yield cls()
        yield cls(n_samples=256, chunk=100)


def sample_tangents(
    flow: Distribution, n: int, context: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples x, log q(x) and ∂_θ log q(x) at fixed x.  -> (n, *event), (n,), (n, n_parameters)

    Flows that define `sample_tangents`, bases that define `tangents` and bijections that define `push_tangents` are
    asked for them; other bijections are differentiated forwards, all samples at once; other densities (small ones!)
    sample by sample.
    """
    if hasattr(flow, "sample_tangents"):
        return flow.sample_tangents(n, context, generator)
    if isinstance(flow, Transformed) and (not _trained(flow.base) or _knows_tangents(flow.base)):
        z, log_prob = flow.base.sample_with_log_prob(n, context, generator)
        pushed, tangents = push_tangents(flow.bijection, z, flow.base.score(z, context), context)
        if _trained(flow.base):
            tangents = torch.cat([flow.base.tangents(z, context), tangents], 1)
        return pushed.x, log_prob - pushed.log_det, tangents
    x, log_prob = flow.sample_with_log_prob(n, context, generator)
    if _knows_tangents(flow):
        return x, log_prob, flow.tangents(x, context)
    parameters = _trained(flow)
    with torch.enable_grad():
        rows = [
            torch.autograd.grad(
                flow.log_prob(x[i : i + 1], None if context is None else context[i : i + 1])[0], parameters
            )
            for i in range(n)
        ]
    return x, log_prob, torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def push_tangents(
    bijection: Bijection, z: Tensor, score: Tensor, context: Tensor | None
) -> tuple[Scored, Tensor]:  # -> …, (batch, n_parameters)
    """`Bijection.push_score`, and the tangents ∂_θ log q(x) at fixed x, in the order of the trained parameters."""
    if isinstance(bijection, Chain):
        log_det, columns = z.real.new_zeros(len(z)), []
        for layer in bijection.layers:
            (z, step, score), own = push_tangents(layer, z, score, context)  # type: ignore[arg-type]
            log_det = log_det + step
            columns.append(own)
        return Scored(z, log_det, score), torch.cat(columns, 1)
    if hasattr(bijection, "push_tangents") and _all_trained(bijection):
        return bijection.push_tangents(z, score, context)
    pushed = bijection.push_score(z, score, context)
    if not _trained(bijection):
        return pushed, z.real.new_zeros(len(z), 0)
    covector = bijection.codomain.target.cotangent(pushed.x, pushed.score)
    return pushed, _tangents(bijection, z, covector, context)


def _knows_tangents(flow: Distribution) -> bool:
    return hasattr(flow, "tangents") and _all_trained(flow)


def _all_trained(module: nn.Module) -> bool:
    return all(p.requires_grad for p in module.parameters())


def _tangents(bijection: Bijection, z: Tensor, covector: Tensor, context: Tensor | None) -> Tensor:
    """∂_θ log q(x) at fixed x = f(z; θ), without the inverse: -∂_θ [log|det| + ⟨∇_x log q, f⟩] at fixed z.

    All samples at once by `vmap`; one by one where the map looks at values.
    """
    trained = {name: p.detach() for name, p in bijection.named_parameters() if p.requires_grad}

    def carried(parameters: dict[str, Tensor], z: Tensor, covector: Tensor, context: Tensor | None) -> Tensor:
        x, log_det = functional_call(bijection, parameters, (z[None], None if context is None else context[None]))
        return -log_det[0] - (covector.conj() * x[0]).real.sum()

    slope = grad(carried)
    try:
        rows = vmap(slope, (None, 0, 0, None if context is None else 0))(trained, z, covector, context)
    except RuntimeError:  # data-dependent control flow
        told = [None] * len(z) if context is None else context
        each = [slope(trained, *sample) for sample in zip(z, covector, told)]
        rows = {name: torch.stack([row[name] for row in each]) for name in trained}
    return torch.cat([rows[name].reshape(len(z), -1) for name in trained], 1)


def _units(context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and spread of the couplings, the same for every chunk of a step and on every rank."""
    if context is None:
        return torch.zeros(0), torch.ones(0)
    return parallel.from_main(lambda: (context.mean(0), context.std(0)))


def _nuisance(
    context: Tensor | None, like: Tensor, units: tuple[Tensor, Tensor], degree: int = 3
) -> Tensor:  # -> (n, n_nuisance)
    """Columns that absorb -log Z(J): the monomials of the couplings that vary, in fixed units."""
    ones = like.new_ones(len(like))
    if context is None:
        return ones[:, None]
    mean, spread = (unit.to(context) for unit in units)
    varies = spread > 1e-6 * mean.abs()
    unit = ((context - mean) / spread)[:, varies].to(like)
    powers = (m for k in range(degree + 1) for m in combinations_with_replacement(range(unit.shape[1]), k))
    return torch.stack([unit[:, list(m)].prod(1) if m else ones for m in powers], 1)


def _curvature_scale(diagonal: Tensor, flow: Distribution) -> Tensor:
    """The curvature each parameter is damped with: that of its time-independent partner in a continuous flow, since
    at θ = 0 the time-dependent ones have none of their own; elsewhere its own, floored by the mean."""
    thetas = {id(m.theta) for m in flow.modules() if isinstance(m, IntegratedFlow)}
    scales = []
    for own, parameter in zip(_split(diagonal, flow), _trained(flow)):
        if id(parameter) in thetas:
            scales.append(own[:, :1].expand(own.shape).clamp(min=1e-12).flatten().to(diagonal))
        else:
            scales.append(own.flatten().to(diagonal) + diagonal.mean())
    return torch.cat(scales)


def _trained(flow: nn.Module) -> list[nn.Parameter]:
    return [p for p in flow.parameters() if p.requires_grad]


def _split(delta: Tensor, flow: Distribution) -> list[Tensor]:
    parameters = _trained(flow)
    pieces = delta.split([p.numel() for p in parameters])
    return [piece.reshape(p.shape).to(p) for piece, p in zip(pieces, parameters)]
