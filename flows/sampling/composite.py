"""Kernels one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.sampling.kernel import Info, Kernel, State


@dataclass(frozen=True)
class Composite(Kernel):
    """Apply several kernels in turn: cluster flips for the signs, then HMC for the rest, say.

    Leaves invariant what every part leaves invariant. Each part starts anew from the field, at the cost of its `init`
    (give an IndependenceMetropolis block=1 here: waiting proposals are dropped).
    Info holds the least acceptance of the parts and the sum of their ΔH. `adapt` tunes the parts one by one.

    Args:
        kernels: the parts, for one field space, in the order they act; repeat one to apply it more often.
    """

    kernels: tuple[Kernel, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", tuple(self.kernels))
        if not self.kernels:
            raise ValueError("expected at least one kernel, got none: pass a tuple like (Wolff(action), hmc)")

    def init(self, x: Tensor) -> State:
        states = [kernel.init(x) for kernel in self.kernels]
        return State(x, states[0].energy)

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        infos = []
        for kernel in self.kernels:
            state, info = kernel.step(kernel.init(state.x), generator)
            infos.append(info)
        accepted = torch.stack([info.accepted for info in infos]).amin(0)
        return State(state.x, state.energy), Info(accepted, torch.stack([info.delta for info in infos]).sum(0))

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[Composite, State]:
        kernels = []
        for kernel in self.kernels:
            tuned, state = kernel.adapt(kernel.init(state.x), n_steps, generator)
            kernels.append(tuned)
        return Composite(tuple(kernels)), State(state.x, state.energy)

    @classmethod
    def examples(cls) -> Iterator[Composite]:
        """Sign clusters, HMC and local updates of φ⁴."""
        from flows.sampling.cluster import SwendsenWang
        from flows.sampling.hmc import HMC
        from flows.sampling.local import LocalMetropolis
        from lattices.theories.phi4 import Phi4

        action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls((SwendsenWang(action), HMC(action, 0.1, 5), LocalMetropolis(action, 0.5)))
