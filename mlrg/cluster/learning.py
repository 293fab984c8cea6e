"""Moderator-based learning: lessons where the flow is slow, losses by enumeration or by Gibbs sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrg.cluster.gibbs import contrastive_divergence, gibbs_teacher
from mlrg.cluster.step import ExactStep
from mlrg.moderator import GradientFlow, SmoothMap

Moderator = GradientFlow | SmoothMap


@dataclass(frozen=True)
class Lessons:
    """How a moderator is taught.

    Args:
        n_steps: optimiser steps.
        batch: couplings per step; a quarter of them is uniform in the region, so that no corner is forgotten.
        focus: inverse width of the HMC weight exp(-focus |M(J) - J|); 0 spreads lessons evenly.
        learning_rate: of Adam at the start; it falls to 1e-3 of that as a cosine.
        loss: "exact" (enumeration) or "gibbs" (contrastive divergence, 256 samples after 5 block updates).
    """

    n_steps: int = 600
    batch: int = 32
    focus: float = 20.0
    learning_rate: float = 1e-2
    loss: str = "exact"

    def __post_init__(self) -> None:
        if self.loss not in ("exact", "gibbs"):
            raise ValueError(f"expected a loss of 'exact' or 'gibbs', got {self.loss!r}: choose one")
        if min(self.n_steps, self.batch) < 1 or self.focus < 0 or not self.learning_rate > 0:
            raise ValueError("expected n_steps, batch >= 1, focus >= 0 and learning_rate > 0: change them")


def learn(moderator: Moderator, step: ExactStep, lessons: Lessons, generator: torch.Generator) -> list[float]:
    """Train a moderator in place over the box centre ± scale; returns the loss of every step.

        min E_J KL(teacher(J) ‖ student(M(J)))

    Raises FloatingPointError if the loss is not finite: shrink the region or the learning rate.
    """
    optimiser = torch.optim.Adam(moderator.parameters(), lr=lessons.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, lessons.n_steps, 1e-3 * lessons.learning_rate)
    chains, history = uniform_lessons(moderator, lessons.batch, generator), []
    for _ in range(lessons.n_steps):
        chains = propose(moderator, chains, lessons.focus, generator)
        uniform = uniform_lessons(moderator, max(1, lessons.batch // 4), generator)
        loss = _loss(moderator, step, torch.cat([chains, uniform]), lessons.loss, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError("the loss is not finite: shrink the region or the learning rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        history.append(loss.item())
    return history


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


def _loss(
    moderator: Callable[[Tensor], Tensor], step: ExactStep, J: Tensor, kind: str, generator: torch.Generator
) -> Tensor:
    image = moderator(J)
    if kind == "exact":
        return step.divergence(J, image).mean()
    outer = gibbs_teacher(step.plaquette, J, 256, 5, generator)
    return contrastive_divergence(step.plaquette, image, outer, generator).mean()
