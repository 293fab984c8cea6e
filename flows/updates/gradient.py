"""GradientUpdate: one step of a stochastic gradient method on any objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, final

import torch

from flows import parallel
from flows.objectives import LogVariance, Objective, ReverseKL
from flows.updates.update import Problem, Report, Update

_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
_SCHEDULES = ("cosine", "constant")


@final
@dataclass(frozen=True)
class GradientUpdate(Update):
    """θ ← θ - r(t) · optimiser(clip(∇_θ loss)) on a fresh batch; the batch is split over the ranks of a parallel run.

    The rate rises linearly during the warm-up and then stays, or falls to zero like a half cosine.

    Args:
        objective: what is lowered, e.g. `ReverseKL()`.
        learning_rate: the largest rate.
        batch_size: samples per step, over all ranks.
        schedule: "cosine" or "constant".
        warm_up: fraction of the fit in [0, 1) during which the rate rises.
        clip_norm: largest Euclidean norm of a gradient; None for no limit.
        optimiser: "adam", "adamw" or "sgd".
    """

    objective: Objective = field(default_factory=ReverseKL)
    learning_rate: float = 1e-3
    batch_size: int = 256
    schedule: str = "cosine"
    warm_up: float = 0.02
    clip_norm: float | None = None
    optimiser: str = "adam"

    def __post_init__(self) -> None:
        for name, known in (("optimiser", tuple(_OPTIMISERS)), ("schedule", _SCHEDULES)):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name} in {known}, got {getattr(self, name)!r}: choose one of them")
        for name, least in (("learning_rate", 0), ("batch_size", 1), ("clip_norm", 0)):
            value = getattr(self, name)
            if value is not None and not (least < value < math.inf):
                raise ValueError(f"expected {name} > {least}, got {value}: pass a larger number")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"expected 0 <= warm_up < 1, got {self.warm_up}: pass a fraction of the fit")

    def rate(self, progress: float) -> float:
        """The learning rate r(t) at a fraction t of the fit."""
        rise = min(1.0, progress / self.warm_up) if self.warm_up else 1.0
        fallen = max(0.0, progress - self.warm_up) / (1 - self.warm_up)
        fall = (1 + math.cos(math.pi * fallen)) / 2 if self.schedule == "cosine" else 1.0
        return self.learning_rate * rise * fall

    def init(self, problem: Problem) -> dict[str, Any]:
        return self._optimiser(problem).state_dict()

    def step(
        self, problem: Problem, state: dict[str, Any], progress: float, generator: torch.Generator
    ) -> tuple[dict[str, Any], Report]:
        optimiser = self._optimiser(problem)
        optimiser.load_state_dict(state)
        group = optimiser.param_groups[0]
        group["lr"] = self.rate(progress)
        loss, log_weights = parallel.evaluate(self.objective, problem, parallel.share(self.batch_size), generator)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(group["params"], self.clip_norm or math.inf)
        optimiser.step()
        numbers = {"gradient_norm": norm.item(), "learning_rate": group["lr"]}
        return optimiser.state_dict(), Report(loss.item(), log_weights, numbers)

    @classmethod
    def examples(cls) -> Iterator[GradientUpdate]:
        """Adam with path gradients; clipped stochastic gradient descent at a constant rate, without forces."""
        yield cls(batch_size=16)
        yield cls(LogVariance(), batch_size=16, optimiser="sgd", schedule="constant", clip_norm=1.0)

    def _optimiser(self, problem: Problem) -> torch.optim.Optimizer:
        parameters = [p for p in problem.flow.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("expected a flow with trainable parameters, got none: unfreeze some, or do not fit it")
        return _OPTIMISERS[self.optimiser](parameters, lr=self.learning_rate)  # type: ignore[call-arg]
