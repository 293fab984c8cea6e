"""Update: one step that improves a flow. `fit` repeats it, and knows nothing else about how a flow learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flows.distribution import Transformed
from lattices.action import Action, Family

Couplings = Callable[[int, torch.Generator], Tensor]
"""Draws n couplings (n, n_couplings) for a conditional flow."""


class Problem(NamedTuple):
    """What is to be learned: a flow, its target, and (for a family of targets) how couplings are drawn."""

    flow: Transformed
    target: Action | Family
    couplings: Couplings | None = None

    def context(self, n: int, generator: torch.Generator) -> Tensor | None:  # -> (n, n_couplings) or None
        """Couplings for n samples, or None for a single target."""
        return self.couplings(n, generator) if self.couplings else None

    def energy(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        """S(x) of the target, at the couplings `context` when the target is a family."""
        if isinstance(self.target, Family):
            if context is None:
                raise ValueError("expected couplings for a Family, got none: pass couplings=… to the Problem")
            return self.target.energy(x, context)
        return self.target.energy(x)


class Report(NamedTuple):
    """What a step saw: the loss it lowers, the log-weights of its samples (float64), and further numbers to log."""

    loss: float
    log_weights: Tensor  # (n,)
    numbers: dict[str, float]


class Update(ABC):
    """A rule that changes the parameters of a flow in place. Concrete updates are frozen dataclasses.

    `state` is whatever the rule carries from step to step: tensors and plain Python only, so that it can be saved
    and resumed bit for bit. `step` returns the new state; `progress` in [0, 1] is the fraction of the fit done
    (for schedules).
    """

    @abstractmethod
    def init(self, problem: Problem) -> dict[str, Any]:
        """The state before the first step."""

    @abstractmethod
    def step(
        self, problem: Problem, state: dict[str, Any], progress: float, generator: torch.Generator
    ) -> tuple[dict[str, Any], Report]:
        """Improve the flow once."""
