"""Learning a moderator from lessons: least squares in the metric of the likelihood, and replicas that carry its errors."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from mlrg.lessons import Lesson
from mlrg.moderator import GradientFlow, SmoothMap

Moderator = GradientFlow | SmoothMap


class Learned(NamedTuple):
    """A moderator fitted to lessons, and one replica for each bootstrap sample of fields and lessons.

    Replica b differs by the Gauss–Newton response of the parameters to the b-th resampled images and lesson weights.
    `scales` are the coefficients of log ζ(J), `responses` those of log ∂h'/∂h, quadratic polynomials of the couplings
    in units of the region; row 0 belongs to the moderator, row b to replica b.
    """

    moderator: Moderator
    replicas: list[Moderator]
    scales: Tensor  # (n_replicas + 1, n_monomials)
    responses: Tensor  # (n_replicas + 1, n_monomials)
    loss: float  # mean excess KL of the fit, in nats per common field

    def log_scale(self, couplings: Tensor, replica: int = 0) -> Tensor:  # (batch, n) -> (batch,)
        """log ζ at J."""
        return _monomials(self.moderator, couplings) @ self.scales[replica]

    def log_response(self, couplings: Tensor, replica: int = 0) -> Tensor:  # (batch, n) -> (batch,)
        """log ∂h'/∂h at J."""
        return _monomials(self.moderator, couplings) @ self.responses[replica]


def learn(
    moderator: Moderator, lessons: Sequence[Lesson], generator: torch.Generator, ridge: float = 1e-6, n_steps: int = 200
) -> Learned:
    """Fit a moderator to lessons, in place, and make its replicas.

        minimise Σ_k ½ (M(J_k) - J'_k)ᵀ G_k (M(J_k) - J'_k) + ridge |θ|²

    G is the Fisher information with ζ optimised, so that the sum is the mean KL of teacher and student in excess of
    its minimum. A moderator that diverges is a ValueError and is put back as it was.
    """
    if not lessons:
        raise ValueError("expected at least one lesson, got none: teach before you learn")
    data = _Data.of(lessons)
    before = deepcopy(moderator.state_dict())
    loss = _minimise(moderator, data, ridge, n_steps)
    if not torch.tensor(loss).isfinite():
        moderator.load_state_dict(before)
        raise ValueError(f"expected a finite loss of the moderator, got {loss}: raise the ridge {ridge} or teach more")
    n_replicas = data.images.shape[1]
    draws = -torch.rand(n_replicas, len(lessons), generator=generator, dtype=torch.float64).log()
    replicas = _replicas(moderator, data, draws, ridge)
    columns = _monomials(moderator, data.couplings)
    scales = _polynomials(columns, data.scale, draws, data.scale_precision)
    responses = _polynomials(columns, data.response, draws, torch.ones_like(data.scale_precision))
    return Learned(moderator, replicas, scales, responses, loss)


class _Data(NamedTuple):
    couplings: Tensor  # (k, n)
    target: Tensor  # (k, n)
    metric: Tensor  # (k, n, n)
    images: Tensor  # (k, n_replicas, n)
    scale: Tensor  # (k, n_replicas + 1)
    scale_precision: Tensor  # (k,)
    response: Tensor  # (k, n_replicas + 1)

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> _Data:
        scale = torch.stack([torch.cat([x.image[-1:], x.images[:, -1]]) for x in lessons])
        return cls(
            torch.stack([x.couplings for x in lessons]),
            torch.stack([x.image[:-1] for x in lessons]),
            torch.stack([_profiled(x.metric) for x in lessons]),
            torch.stack([x.images[:, :-1] for x in lessons]),
            scale,
            1 / scale[:, 1:].var(1).clamp(min=1e-300),
            torch.stack([x.odd for x in lessons]).log(),
        )


def _profiled(metric: Tensor) -> Tensor:  # (n + 1, n + 1) -> (n, n)
    """The Fisher information of J' when ζ is optimised: the Schur complement."""
    return metric[:-1, :-1] - torch.outer(metric[:-1, -1], metric[-1, :-1]) / metric[-1, -1]


def _minimise(moderator: Moderator, data: _Data, ridge: float, n_steps: int) -> float:
    parameters = [p for p in moderator.parameters() if p.requires_grad]
    optimiser = torch.optim.LBFGS(parameters, max_iter=n_steps, history_size=50, line_search_fn="strong_wolfe")

    def excess() -> Tensor:
        error = moderator(data.couplings) - data.target
        return 0.5 * torch.einsum("ki,kij,kj->k", error, data.metric, error).mean()

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = excess() + ridge * sum(p.square().sum() for p in parameters)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
        return float(excess())


def _replicas(moderator: Moderator, data: _Data, draws: Tensor, ridge: float) -> list[Moderator]:
    """The fitted parameters moved by Gauss–Newton to each replicate's images and lesson weights."""
    names, values = zip(*((k, v.detach()) for k, v in moderator.named_parameters()))
    flat, shapes = torch.cat([v.flatten() for v in values]), [v.shape for v in values]

    def outputs(theta: Tensor) -> Tensor:
        parts = [p.reshape(s) for p, s in zip(theta.split([s.numel() for s in shapes]), shapes)]
        return functional_call(moderator, dict(zip(names, parts)), (data.couplings,))

    with torch.enable_grad():
        slope = jacrev(outputs)(flat).detach()  # (k, n, P)
        error = (data.target - outputs(flat)).detach()
    weighted = torch.einsum("kij,kjp->kip", data.metric, slope) / len(slope)
    replicas = []
    for b, weight in enumerate(draws):
        weight = weight / weight.mean()
        curvature = torch.einsum("k,kip,kiq->pq", weight, weighted, slope)
        curvature = curvature + 2 * ridge * torch.eye(len(flat), dtype=flat.dtype)
        target = error + data.images[:, b] - data.images.mean(1)
        pull = torch.einsum("k,kip,ki->p", weight, weighted, target) - 2 * ridge * flat
        replica = deepcopy(moderator)
        nn.utils.vector_to_parameters(flat + torch.linalg.solve(curvature, pull), replica.parameters())
        replicas.append(replica)
    return replicas


def _polynomials(columns: Tensor, values: Tensor, draws: Tensor, precision: Tensor) -> Tensor:
    """Weighted least-squares coefficients, row 0 without resampling."""
    weights = torch.cat([torch.ones_like(draws[:1]), draws]) * precision
    rows = []
    for weight, value in zip(weights.sqrt(), values.T):
        rows.append(torch.linalg.lstsq(columns * weight[:, None], value * weight, driver="gelsd").solution)
    return torch.stack(rows)


def _monomials(moderator: Moderator, couplings: Tensor) -> Tensor:  # (batch, n) -> (batch, n_monomials)
    u = (couplings - moderator.centre) / moderator.scale
    squares = (u[:, :, None] * u[:, None]).flatten(1)
    return torch.cat([torch.ones_like(u[:, :1]), u, squares], 1)
