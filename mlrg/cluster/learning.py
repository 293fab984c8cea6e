"""Moderator-based learning: lessons where the flow is slow, losses by enumeration or by Gibbs sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mlrg.cluster.gibbs import contrastive_divergence, gibbs_teacher
from mlrg.cluster.step import ExactStep
from mlrg.moderator import GradientFlow, SmoothMap

Moderator = GradientFlow | SmoothMap


@dataclass(frozen=True)
class Lessons:
    """How a moderator is taught.

    Args:
        n_steps: steps of Adam, each on new lessons.
        batch: couplings per step; a quarter as many are uniform in the region, so that no corner is forgotten.
        focus: inverse width of the HMC weight exp(-focus |M(J) - J|); 0 spreads lessons evenly.
        learning_rate: of Adam at the start; it falls to 1e-3 of that as a cosine.
        loss: "exact" (enumeration) or "gibbs" (contrastive divergence, 256 samples after 5 block updates).
        n_polish: Gauss–Newton steps on the last lessons; only for the exact loss, which has no noise.
    """

    n_steps: int = 100
    batch: int = 32
    focus: float = 20.0
    learning_rate: float = 1e-2
    loss: str = "exact"
    n_polish: int = 20

    def __post_init__(self) -> None:
        if self.loss not in ("exact", "gibbs"):
            raise ValueError(f"expected a loss of 'exact' or 'gibbs', got {self.loss!r}: choose one")
        if min(self.n_steps, self.batch) < 1 or min(self.focus, self.n_polish) < 0 or not self.learning_rate > 0:
            raise ValueError("expected n_steps, batch >= 1, focus, n_polish >= 0 and learning_rate > 0: change them")


def learn(
    moderator: Moderator,
    step: ExactStep,
    lessons: Lessons,
    generator: torch.Generator,
    directions: Tensor | None = None,
) -> list[float]:
    """Train a moderator in place over the box centre ± scale; returns the loss of every lesson and of the polish.

        min E_J KL(teacher(J) ‖ student(M(J)))

    With `directions` D (n, m) the moderator maps m coordinates y, and J = D y. Raises FloatingPointError if the loss
    is not finite: shrink the region or the learning rate.
    """
    D = torch.eye(step.plaquette.bond.n_couplings).to(moderator.centre) if directions is None else directions

    def loss_of(y: Tensor) -> Tensor:
        return _loss(step, y @ D.mT, moderator(y) @ D.mT, lessons.loss, generator)

    history, last = _adapt(moderator, loss_of, lessons, generator)
    if lessons.loss == "exact" and lessons.n_polish:
        history.append(_polish(moderator, step, D, last, lessons.n_polish))
    return history


def _adapt(
    moderator: Moderator, loss_of: Callable[[Tensor], Tensor], lessons: Lessons, generator: torch.Generator
) -> tuple[list[float], Tensor]:
    """Adam on lessons that follow the moderator; the losses, and the lessons of the last step."""
    optimiser = torch.optim.Adam(moderator.parameters(), lr=lessons.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, lessons.n_steps, 1e-3 * lessons.learning_rate)
    chains, history = uniform_lessons(moderator, lessons.batch, generator), []
    for _ in range(lessons.n_steps):
        chains = propose(moderator, chains, lessons.focus, generator)
        y = torch.cat([chains, uniform_lessons(moderator, max(1, lessons.batch // 4), generator)])
        loss = _finite(loss_of(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        history.append(loss.item())
    return history, y


def _polish(moderator: Moderator, step: ExactStep, D: Tensor, y: Tensor, n_steps: int) -> float:
    """Gauss–Newton in function space on lessons that stay: the weights follow the Newton move of every image.

        δθ = Tᵀ (T Tᵀ + λ)⁻¹ d,    T = ∂M(y)/∂θ,    d = -(∂²KL/∂J'²)⁻¹ ∂KL/∂J'

    λ falls when the loss does; returns the loss it reaches.
    """
    weights = list(moderator.parameters())
    theta, damping, value = parameters_to_vector(weights).detach(), 1e-3, float("inf")
    for _ in range(n_steps):
        image = moderator(y)
        loss = _finite(step.divergence(y @ D.mT, image.detach() @ D.mT).mean()).item()
        if loss <= value:
            theta, value, damping = parameters_to_vector(weights).detach().clone(), loss, max(damping / 10, 1e-9)
            tangents, moves = _tangents(image, weights), _newton_moves(step, D, y, image.detach()).flatten()
        else:
            damping *= 30
        kernel = tangents @ tangents.mT
        kernel.diagonal().add_(damping * kernel.diagonal().mean())
        vector_to_parameters(theta + tangents.mT @ torch.linalg.solve(kernel, moves), weights)
    vector_to_parameters(theta, weights)
    return value


def _tangents(image: Tensor, weights: Sequence[Tensor]) -> Tensor:  # (batch, m) -> (batch * m, n_weights)
    rows = torch.eye(image.numel(), dtype=image.dtype, device=image.device).unflatten(-1, image.shape)
    slopes = torch.autograd.grad(image, weights, rows, is_grads_batched=True, allow_unused=True)
    filled = [rows.new_zeros((len(rows), w.numel())) if s is None else s.flatten(1) for s, w in zip(slopes, weights)]
    return torch.cat(filled, -1)


def _newton_moves(step: ExactStep, D: Tensor, y: Tensor, image: Tensor) -> Tensor:  # (batch, m) -> (batch, m)
    """-|H|⁻¹ g of every lesson; flat directions do not move."""

    def divergence(at: Tensor, to: Tensor) -> Tensor:
        return step.divergence(at @ D.mT, to @ D.mT)

    slope = vmap(grad(divergence, argnums=1))(y, image)
    curvature, axes = torch.linalg.eigh(vmap(hessian(divergence, argnums=1))(y, image))
    gain = torch.where(curvature.abs() > 1e-9, curvature, torch.inf).abs()
    return -(axes @ ((axes.mT @ slope[..., None]) / gain[..., None]))[..., 0].clamp(-0.2, 0.2)


def _finite(loss: Tensor) -> Tensor:
    if not torch.isfinite(loss):
        raise FloatingPointError("the loss is not finite: shrink the region or the learning rate")
    return loss


def propose(
    moderator: Moderator, J: Tensor, focus: float, generator: torch.Generator, n_leapfrog: int = 3
) -> Tensor:  # (batch, n) -> (batch, n)
    """New couplings by one HMC trajectory with the weight exp(-focus |M(J) - J|) in the box; J is not changed."""
    step_size = 0.2 * moderator.scale

    def energy(at: Tensor) -> Tensor:
        outside = ((at - moderator.centre).abs() / moderator.scale - 1).clamp(min=0)
        return focus * (moderator(at) - at).norm(dim=-1) + 1e3 * outside.square().sum(-1)

    def force(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(energy(at).sum(), at)[0].nan_to_num() * step_size

    p = torch.randn(J.shape, generator=generator, dtype=J.dtype, device=J.device)
    x, q = J.detach(), p - 0.5 * force(J)
    for i in range(n_leapfrog):
        x = x + step_size * q
        q = q - (1.0 if i < n_leapfrog - 1 else 0.5) * force(x)
    with torch.no_grad():
        rise = energy(x) - energy(J) + 0.5 * (q.square() - p.square()).sum(-1)
    u = torch.rand(len(J), generator=generator, dtype=J.dtype, device=J.device)
    return torch.where((u.log() < -rise)[:, None], x, J)


def uniform_lessons(moderator: Moderator, n: int, generator: torch.Generator) -> Tensor:  # -> (n, n_couplings)
    """Couplings uniform in the box centre ± scale."""
    u = torch.rand((n, len(moderator.centre)), generator=generator, dtype=moderator.centre.dtype)
    return moderator.centre + moderator.scale * (2 * u.to(moderator.centre) - 1)


def _loss(step: ExactStep, J: Tensor, image: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    if kind == "exact":
        return step.divergence(J, image).mean()
    outer = gibbs_teacher(step.plaquette, J, 256, 5, generator)
    return contrastive_divergence(step.plaquette, image, outer, generator).mean()
