"""Quantities: what is measured in a theory, the rows of its tables, what is known exactly, and its pictures."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flows.tables import Column
from lattices.action import Action
from lattices.statistics import Estimate

ROUNDING = 1e-12
"""Relative changes of a number that count as none."""

Average = Callable[..., Estimate]
"""A function of averages: (function, *observables) -> Estimate."""


class Identity(NamedTuple):
    """A Schwinger–Dyson equation: the mean of a measured number that holds for every action."""

    text: str
    name: str
    value: float


@dataclass(frozen=True)
class Quantities(ABC):
    """What one looks at in one theory. Concrete classes are frozen dataclasses of the action.

    Args:
        action: the theory.
    """

    action: Action

    @abstractmethod
    def measure(self, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch, …)}
        """The numbers of every configuration."""

    @abstractmethod
    def rows(self, measured: Mapping[str, Tensor], average: Average) -> dict[str, Estimate]:
        """The rows of a table, from measurements (n, …) or (n_chains, n_steps, …)."""

    @abstractmethod
    def exact(self) -> dict[str, float]:
        """What is known exactly, by row."""

    @property
    @abstractmethod
    def identity(self) -> Identity | None:
        """The identity that checks samples of this theory, where one is known."""

    @property
    @abstractmethod
    def slow(self) -> tuple[str, str]:
        """What chains are slowest in, whose autocorrelation time is quoted: its symbol, and its measured name."""

    @abstractmethod
    def start(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *event)
        """Fields that chains start from."""

    @abstractmethod
    def draw(self, columns: Sequence[Column], samples: Mapping[str, Tensor], indices: Tensor, folder: Path) -> None:
        """Write the figures of corrected samples.

        Args:
            columns: reweighted and Metropolis estimates.
            samples: what `measure` found at the samples, and their "log_weights".
            indices: the Metropolis chain through the samples.
            folder: where to.
        """


def mean(average: Average, values: Tensor) -> Estimate:
    """⟨O⟩; what never moves, but for rounding, has an unknown error: infinite."""
    if values.numel() and bool(values.max() - values.min() <= ROUNDING * values.abs().max()):
        return Estimate(float(values.flatten()[0]) + 0.0, math.inf, values.numel())
    return average(_same, values)


def _same(value: np.ndarray) -> np.ndarray:
    return value
