"""Maximum likelihood by Fisher scoring: the natural gradient where there are points, and no energy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from flows import parallel
from flows.data import Points, log_likelihood
from flows.distribution import Transformed
from flows.layers.harmonic import HarmonicFlow
from flows.updates.natural import push_tangents, sample_tangents
from flows.updates.update import Problem, Report, Update


@dataclass(frozen=True)
class MaximumLikelihood(Update):
    """Fisher scoring: the natural gradient of L = ⟨log q(x)⟩_points - α Σ_j ρ_j θ_j² / 2n, n points.

        δ = [F + λ (diag F + mean diag F) + αρ/n]⁻¹ (⟨T⟩_points - αρθ/n),    F = ⟨T Tᵀ⟩_q,    T(x) = ∂_θ log q(x)

    and θ ← θ + η δ. ⟨T⟩_q = 0, so F is the exact Fisher information in the mean; the fixed points do not depend on its
    noise. α is a prior for smooth maps, without which many parameters draw filaments: ρ_j = λ_j², the squared
    eigenvalues of the potentials of harmonic flows, and 1 for other parameters. η keeps the KL divergence moved,
    ½ η² δᵀFδ, below `trust`, and is halved where L would fall. Reports the likelihood of held-out points after every
    step: stop early by it. Cost per step: tangents of all points (of which the latent ones are found first, by one
    inverse) and of `n_samples` samples, and P³/3 for P parameters: for flows with P ≲ 5000.

    Args:
        n_samples: samples of the flow for F, over all ranks; a few times P.
        n_points: the most points in each step, drawn afresh if there are more.
        chunk: samples in memory at a time.
        damping: λ.
        prior: α ≥ 0, the inverse variance of √ρ θ before anything was seen.
        trust: largest KL moved in one step, in nats.
        halvings: how often a step that makes the points of the step less likely is halved before it is given up.
    References: Amari (1998), Neural Computation 10, 251; Fisher scoring: any text on likelihood.
    """

    n_samples: int = 2048
    n_points: int = 20_000
    chunk: int = 512
    damping: float = 1e-2
    prior: float = 1.0
    trust: float = 0.5
    halvings: int = 4

    def __post_init__(self) -> None:
        if (
            min(self.n_samples, self.n_points) < 2
            or self.chunk < 1
            or self.halvings < 0
            or not self.damping > 0
            or not self.trust > 0
            or not self.prior >= 0
        ):
            raise ValueError(
                f"expected n_samples, n_points >= 2, chunk, damping, trust > 0, prior >= 0, got {self}: raise them"
            )

    def init(self, problem: Problem) -> dict[str, Any]:
        if not isinstance(problem.target, Points):
            got = type(problem.target).__name__
            raise ValueError(f"expected points to learn from, got {got}: use `latflow fit`, or another update")
        problem.target.observed()
        if not _trained(problem.flow.bijection) or _trained(problem.flow.base):
            raise ValueError(
                "expected trainable parameters in the bijection, and none in the base: freeze, or unfreeze"
            )
        return {}

    @torch.no_grad()
    def step(
        self, problem: Problem, state: dict[str, Any], progress: float, generator: torch.Generator
    ) -> tuple[dict[str, Any], Report]:
        flow, (points, held_out) = problem.flow, problem.target.observed()  # type: ignore[union-attr]
        x = self._batch(points, generator)
        fisher = self._information(flow, generator)
        slope, log_q = self._score(flow, x)
        scale = fisher.diagonal() + fisher.diagonal().mean()
        precision = self.prior / len(points) * roughness(flow)
        ridge = self.damping * scale + precision
        delta = torch.linalg.solve(fisher + torch.diag(ridge), slope - precision * _vector(flow).double())
        curvature = float(delta @ fisher @ delta)
        rate = min(1.0, (2 * self.trust / max(curvature, 1e-300)) ** 0.5)
        rate = self._ascend(flow, x, rate * delta, precision) * rate
        after = log_likelihood(flow, held_out.to(points))
        numbers = {"held_out": after.value, "held_out_error": after.error, "rate": rate}
        unknown = torch.full((len(log_q),), torch.nan, dtype=torch.float64)
        return state, Report(-float(log_q.mean()), unknown, numbers)

    def _ascend(self, flow: Transformed, x: Tensor, change: Tensor, precision: Tensor) -> float:
        """Change the parameters, half as much until L grows; the fraction of the change that was made."""
        start, before = _vector(flow), _likelihood(flow, x, precision)
        for fraction in (0.5**k for k in range(self.halvings + 1)):
            vector_to_parameters(start + (fraction * change).to(start), _trained(flow))
            if _likelihood(flow, x, precision) > before:
                return fraction
        vector_to_parameters(start, _trained(flow))
        return 0.0

    def _information(self, flow: Transformed, generator: torch.Generator) -> Tensor:  # -> (P, P), float64
        """⟨T Tᵀ⟩ over samples of the flow."""
        total: Tensor | float = 0.0
        own = parallel.share(self.n_samples)
        for start in range(0, own, self.chunk):
            _, _, tangents = sample_tangents(flow, min(self.chunk, own - start), None, generator)
            total = total + tangents.double().T @ tangents.double()
        return parallel.gather(total[None]).sum(0) / self.n_samples  # type: ignore[index]

    def _score(self, flow: Transformed, x: Tensor) -> tuple[Tensor, Tensor]:  # -> (P,), (n,)
        """⟨T⟩ over points, and their log q."""
        parts = [point_tangents(flow, part) for part in x.split(self.chunk)]
        total = torch.stack([tangents.double().sum(0) for _, tangents in parts]).sum(0)
        log_q = torch.cat([values.double() for values, _ in parts])
        n = sum(parallel.gather_objects(len(x)))
        return parallel.gather(total[None]).sum(0) / n, log_q

    def _batch(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """The points of this step and rank."""
        own = points[parallel.rank() :: parallel.world_size()]
        n = max(1, self.n_points // parallel.world_size())
        if len(own) <= n:
            return own
        chosen = torch.randperm(len(own), generator=generator, device=generator.device)[:n]
        return own[chosen.to(own.device)]

    @classmethod
    def examples(cls) -> Iterator[MaximumLikelihood]:
        """The defaults, and a small one."""
        yield cls()
        yield cls(n_samples=256, n_points=200)


def point_tangents(flow: Transformed, x: Tensor) -> tuple[Tensor, Tensor]:  # -> (n,), (n, n_parameters)
    """log q(x) and ∂_θ log q(x) at given points (n, *event), by way of the latent points f⁻¹(x)."""
    z, log_det = flow.bijection.inverse(x)
    _, tangents = push_tangents(flow.bijection, z, flow.base.score(z), None)
    return flow.base.log_prob(z) + log_det, tangents


def roughness(flow: Transformed) -> Tensor:  # -> (P,), float64
    """ρ of every trained parameter: λ² of the potential it multiplies in a harmonic flow, 1 elsewhere."""
    rough = {id(m.theta): m.harmonics.eigenvalues.square() for m in flow.modules() if isinstance(m, HarmonicFlow)}
    known = (rough.get(id(p), p.new_ones(())).expand(p.shape) for p in _trained(flow))
    return torch.cat([values.flatten().double() for values in known])


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _vector(flow: Transformed) -> Tensor:
    return parameters_to_vector(_trained(flow)).detach().clone()


def _likelihood(flow: Transformed, x: Tensor, precision: Tensor) -> float:
    """L over the points of all ranks."""
    found = parallel.gather_objects((log_likelihood(flow, x).value, len(x)))
    mean = sum(value * n for value, n in found) / sum(n for _, n in found)
    return mean - float(precision @ _vector(flow).double().square()) / 2
