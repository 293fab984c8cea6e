"""Learning a moderator from lessons: least squares in the metric of their errors, and replicas that carry its own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mlrg.lessons import Lesson
from mlrg.moderator import GradientFlow, SmoothMap

Fitted = GradientFlow | SmoothMap


class Linearised(nn.Module):
    """A moderator moved to first order in its parameters: what a replica is.

        M_δ(J) = M(J; θ) + δ·∂M(J; θ)/∂θ,    by the central difference of M(J; θ ± εδ), ε|δ| = 10⁻³

    Weights that the lessons hardly constrain may move far while the map itself hardly moves: to first order in δ
    the response of the *map* is right, at θ + δ it is not. Three evaluations of the moderator.
    """

    def __init__(self, moderator: Fitted, shift: Tensor) -> None:
        super().__init__()
        self.step = 1e-3 / max(float(shift.norm()), 1e-300)
        self.moderator, self.ahead, self.behind = (deepcopy(moderator) for _ in range(3))
        flat = nn.utils.parameters_to_vector(moderator.parameters()).detach()
        for moved, sign in ((self.ahead, 1), (self.behind, -1)):
            nn.utils.vector_to_parameters(flat + sign * self.step * shift, moved.parameters())

    @property
    def centre(self) -> Tensor:
        return self.moderator.centre

    @property
    def scale(self) -> Tensor:
        return self.moderator.scale

    def forward(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch, n)
        """The new couplings."""
        return self._first_order("forward", J)

    def jacobian(self, J: Tensor) -> Tensor:  # (batch, n) -> (batch, n, n)
        """∂M_i/∂J_j."""
        return self._first_order("jacobian", J)

    def _first_order(self, method: str, J: Tensor) -> Tensor:
        at, ahead, behind = (getattr(m, method)(J) for m in (self.moderator, self.ahead, self.behind))
        return at + (ahead - behind) / (2 * self.step)


Moderator = Fitted | Linearised


class Learned(NamedTuple):
    """A moderator fitted to lessons, and one replica for each bootstrap sample of the fields.

    Replica b differs by the Gauss–Newton response of the parameters to the b-th resampled lessons.
    `scales` are the coefficients of log ζ(J), `responses` those of log ∂h'/∂h, quadratic polynomials of the couplings
    in units of the region; row 0 belongs to the moderator, row b to replica b.
    """

    moderator: Fitted
    replicas: list[Linearised]
    scales: Tensor  # (n_replicas + 1, n_monomials)
    responses: Tensor  # (n_replicas + 1, n_monomials)
    loss: float  # mean excess KL of the fit, in nats per common field
    inflation: float  # √(χ²/dof) of the lessons where it exceeds 1: what errors are multiplied by, as they disagree

    def log_scale(self, couplings: Tensor, replica: int = 0) -> Tensor:  # (batch, n) -> (batch,)
        """log ζ at J."""
        return _monomials(self.moderator, couplings) @ self.scales[replica]

    def log_response(self, couplings: Tensor, replica: int = 0) -> Tensor:  # (batch, n) -> (batch,)
        """log ∂h'/∂h at J."""
        return _monomials(self.moderator, couplings) @ self.responses[replica]


def learn(moderator: Fitted, lessons: Sequence[Lesson], ridge: float = 3.0, n_steps: int = 300) -> Learned:
    """Fit a moderator to lessons, in place, and make its replicas.

        minimise Σ_k (M(J_k) - J'_k)ᵀ Σ_k⁻¹ (M(J_k) - J'_k) + Σ_k |(∂M(J_k) - ∂J'_k)/δ_k|² + ridge |θ|²

    with the bootstrap covariance Σ of the images and errors δ of their linear response; Σ⁻¹ is n times the Fisher
    information of the likelihood, so that the first sum is 2n times the KL of teacher and student in excess of its
    minimum; the ridge holds the network's weights, not the affine part. A moderator that diverges is a ValueError and
    is put back as it was.
    """
    if not lessons:
        raise ValueError("expected at least one lesson, got none: teach before you learn")
    data = _Data.of(lessons)
    before = deepcopy(moderator.state_dict())
    loss = _minimise(moderator, data, ridge, n_steps)
    if not torch.tensor(loss).isfinite():
        moderator.load_state_dict(before)
        raise ValueError(f"expected a finite loss of the moderator, got {loss}: raise the ridge {ridge} or teach more")
    replicas, inflation = _replicas(moderator, data, ridge)
    columns = _monomials(moderator, data.couplings)
    scales, responses = (_polynomials(columns, values) for values in (data.scale, data.response))
    return Learned(moderator, replicas, scales, responses, loss, inflation)


class _Data(NamedTuple):
    """Lessons side by side: k lessons, n couplings, b replicates; rows (k, n + n²) are images and linear responses."""

    couplings: Tensor  # (k, n)
    rows: Tensor  # (k, n + n²)
    precision: Tensor  # (k, n + n², n + n²)
    images: Tensor  # (k, b, n + n²): deviations of the replicates
    metric: Tensor  # (k, n, n)
    scale: Tensor  # (k, b + 1)
    response: Tensor  # (k, b + 1)

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> _Data:
        images = torch.stack([torch.cat([x.images[:, :-1], x.jacobians[:, :-1].flatten(1)], 1) for x in lessons])
        images = images - images.mean(1, keepdim=True)
        return cls(
            torch.stack([x.couplings for x in lessons]),
            torch.stack([torch.cat([x.image[:-1], x.jacobian[:-1].flatten()]) for x in lessons]),
            torch.stack([_precision(deviations, len(lessons[0].couplings)) for deviations in images]),
            images,
            torch.stack([_profiled(x.metric) for x in lessons]),
            torch.stack([torch.cat([x.image[-1:], x.images[:, -1]]) for x in lessons]),
            torch.stack([x.odd for x in lessons]).log(),
        )


def _precision(deviations: Tensor, n: int) -> Tensor:  # (b, n + n²) -> (n + n², n + n²)
    """Inverse covariance: full for the image, diagonal for its derivatives."""
    covariance = deviations.T @ deviations / (len(deviations) - 1)
    block = torch.diag(covariance.diagonal())
    block[:n, :n] = covariance[:n, :n]
    return torch.linalg.inv(block)


def _profiled(metric: Tensor) -> Tensor:  # (n + 1, n + 1) -> (n, n)
    """The Fisher information of J' when ζ is optimised: the Schur complement."""
    return metric[:-1, :-1] - torch.outer(metric[:-1, -1], metric[-1, :-1]) / metric[-1, -1]


def _outputs(moderator: Fitted, couplings: Tensor) -> Tensor:  # (k, n) -> (k, n + n²)
    """M(J) and ∂M/∂J, differentiable in the parameters."""
    values = [moderator(couplings)]
    for i in range(couplings.shape[1]):
        at = couplings.detach().requires_grad_()
        values.append(torch.autograd.grad(moderator(at)[:, i].sum(), at, create_graph=True)[0])
    return torch.cat(values, 1)


def _minimise(moderator: Fitted, data: _Data, ridge: float, n_steps: int) -> float:
    """Full-batch LBFGS; returns the mean excess KL, in nats per common field."""
    parameters = [p for p in moderator.parameters() if p.requires_grad]
    optimiser = torch.optim.LBFGS(parameters, max_iter=n_steps, history_size=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        error = _outputs(moderator, data.couplings) - data.rows
        loss = torch.einsum("ki,kij,kj->", error, data.precision, error)
        loss = loss + ridge * sum(p.square().sum() for p in moderator.network.parameters())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
        error = (moderator(data.couplings) - data.rows[:, : data.couplings.shape[1]]).detach()
    return float(0.5 * torch.einsum("ki,kij,kj->k", error, data.metric, error).mean())


def _replicas(moderator: Fitted, data: _Data, ridge: float) -> tuple[list[Linearised], float]:
    """The fitted parameters moved by Gauss–Newton to each replicate of the lessons; and √(χ²/dof), at least 1."""
    names, values = zip(*((k, v.detach()) for k, v in moderator.named_parameters()))
    flat, sizes = torch.cat([v.flatten() for v in values]), [v.numel() for v in values]

    def outputs(theta: Tensor) -> Tensor:
        parts = [p.reshape(v.shape) for p, v in zip(theta.split(sizes), values)]
        return functional_call(_Outputs(moderator), {f"moderator.{k}": p for k, p in zip(names, parts)}, data.couplings)

    with torch.enable_grad():
        slope = torch.autograd.functional.jacobian(outputs, flat)  # (k, n + n², P)
        error = (data.rows - outputs(flat)).detach()
    weighted = torch.einsum("kij,kjp->kip", data.precision, slope)
    fisher = torch.einsum("kip,kiq->pq", weighted, slope)
    held = torch.cat([torch.full_like(v, float(k.startswith("network"))).flatten() for k, v in zip(names, values)])
    ridges = torch.diag(ridge * held + 1e-9 * fisher.diagonal().mean())
    response = torch.linalg.solve(fisher + ridges, weighted.flatten(0, 1).T)
    steps = torch.einsum("pk,kb->bp", response, data.images.movedim(1, -1).flatten(0, 1))
    replicas = [Linearised(moderator, step) for step in steps]
    freedom = error.numel() - float(torch.einsum("pk,kp->", response, slope.flatten(0, 1)))
    chi_squared = float(torch.einsum("ki,kij,kj->", error, data.precision, error))
    return replicas, max(1.0, (chi_squared / max(freedom, 1.0)) ** 0.5)


class _Outputs(nn.Module):
    """`_outputs` as a module, for `functional_call`."""

    def __init__(self, moderator: Fitted) -> None:
        super().__init__()
        self.moderator = moderator

    def forward(self, couplings: Tensor) -> Tensor:
        return _outputs(self.moderator, couplings)


def _polynomials(columns: Tensor, values: Tensor) -> Tensor:  # (k, n_monomials), (k, b + 1) -> (b + 1, n_monomials)
    """Weighted least-squares coefficients of the values and of each replicate, by minimal norm where undetermined."""
    weight = values[:, 1:].var(1).clamp(min=1e-300).rsqrt()[:, None]
    weight = weight / weight.max()
    return torch.linalg.lstsq(columns * weight, values * weight, driver="gelsd").solution.T


def _monomials(moderator: Fitted, couplings: Tensor) -> Tensor:  # (batch, n) -> (batch, n_monomials)
    u = (couplings - moderator.centre) / moderator.scale
    squares = (u[:, :, None] * u[:, None]).flatten(1)
    return torch.cat([torch.ones_like(u[:, :1]), u, squares], 1)
