"""Kernel: one Markov step that leaves exp(-S) invariant; `run` iterates any kernel and records what was asked for.

A kernel is a frozen dataclass: a method is data. It knows how to start and how to step, not how often, nor where the
results go. All chains of a batch move at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm


class State(NamedTuple):
    """Where the chains are: the fields, their energies, and whatever a kernel carries along (tensors only)."""

    x: Tensor  # (chains, *event)
    energy: Tensor  # (chains,)
    extra: tuple[Tensor, ...] = ()


class Info(NamedTuple):
    """What happened in a step: acceptance in [0, 1] for each chain, and ΔH (0 where there is none)."""

    accepted: Tensor  # (chains,)
    delta: Tensor  # (chains,)


class Kernel(ABC):
    """A Markov transition with stationary density exp(-S)/Z."""

    @abstractmethod
    def init(self, x: Tensor) -> State:  # (chains, *event)
        """The state of chains that start at x; validates x."""

    @abstractmethod
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        """One transition of every chain, without gradients."""

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[Kernel, State]:
        """Warm up: n_steps that may tune the method. Returns the frozen kernel to measure with, and the state."""
        require_warm_up(n_steps)
        for _ in range(n_steps):
            state, _ = self.step(state, generator)
        return self, state

    @classmethod
    def examples(cls) -> Iterator[Kernel]:
        """Small instances: documentation first, test data second."""
        raise NotImplementedError(f"{cls.__name__} gives no examples(): yield a few small instances")


def require_warm_up(n_steps: int) -> None:
    """Raise ValueError for a negative number of warm-up steps."""
    if n_steps < 0:
        raise ValueError(f"expected n_steps >= 0, got {n_steps}: pass the number of warm-up steps")


class History(NamedTuple):
    """What `run` recorded: measurements (n_chains, n_steps, …) by name, acceptance, ΔH, and the last state."""

    measured: dict[str, Tensor]
    accepted: Tensor  # (n_chains, n_steps)
    delta: Tensor  # (n_chains, n_steps)
    state: State


def run(
    kernel: Kernel,
    state: State,
    n_steps: int,
    generator: torch.Generator,
    measure: Callable[[Tensor], dict[str, Tensor]] | None = None,
    **progress: Any,
) -> History:
    """Iterate `kernel` n_steps times, measuring after every step; a progress bar shows on terminals only.

    Args:
        measure: x (chains, *event) -> {name: (chains, …)}; keep it small, every step is stored.
        progress: passed on to tqdm, e.g. desc="HMC".
    """
    if n_steps < 1:
        raise ValueError(f"expected at least one step, got n_steps = {n_steps}: pass a positive number")
    records: dict[str, list[Tensor]] = {}
    infos = []
    for _ in tqdm(range(n_steps), disable=None, leave=False, **progress):
        with torch.no_grad():
            state, info = kernel.step(state, generator)
            for name, value in (measure(state.x) if measure else {}).items():
                records.setdefault(name, []).append(value)
        infos.append(info)
    measured = {name: torch.stack(values, 1) for name, values in records.items()}
    accepted, delta = (torch.stack([getattr(i, key) for i in infos], 1) for key in Info._fields)
    return History(measured, accepted, delta, state)
