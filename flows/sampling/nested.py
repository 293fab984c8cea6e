"""Hamiltonian Monte Carlo with several time scales: cheap, strong forces more often than dear, weak ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.sampling.integrators import INTEGRATORS, Phase, restored, trajectory
from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import accept, select, tune
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Links, Real, Sphere


@dataclass(frozen=True)
class NestedHMC(Kernel):
    """Hamiltonian Monte Carlo for S = S_1 + S_2 + …, with one step size for each part.

        e^{τH} ≈ [ kick of S_1 by ε/2, n_2 steps of size ε/n_2 of the rest, kick of S_1 by ε/2 ]^{n_1}

    and so on for the rest; reversible and symplectic like its parts, of the same order. One step costs n_1 forces of
    S_1, n_1 n_2 of S_2, … (×2 for omf2, whose steps have two drifts, ×5 for omf4, at every level). `HMC` is the case
    of one part.

    Args:
        actions: the parts on one field space, those of weak and dear forces first.
        step_size: ε > 0 of the first part; the trajectory has length ε n_steps[0].
        n_steps: steps per trajectory, then steps of each further part per drift of the part before it.
        integrator: "leapfrog", "omf2" or "omf4", at every level.
        jitter: every chain draws its ε from step_size × [1 - jitter, 1 + jitter]: breaks periodic orbits.
        target_acceptance: what `adapt` aims at.

    References:
        J. C. Sexton, D. H. Weingarten, Nucl. Phys. B 380 (1992) 665.
    """

    actions: tuple[Action, ...]
    step_size: float
    n_steps: tuple[int, ...]
    integrator: str = "leapfrog"
    jitter: float = 0.0
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        if not self.actions or len(self.actions) != len(self.n_steps):
            raise ValueError(
                f"expected one number of steps for each action, got {len(self.actions)} actions and {self.n_steps}"
                ": pass for instance (slow, fast) and (10, 4)"
            )
        _check_target(self.action.field)
        if not 0 < self.step_size < float("inf") or not all(isinstance(n, int) and n >= 1 for n in self.n_steps):
            raise ValueError(
                f"expected step_size > 0 and a whole n_steps >= 1, got {self.step_size} and {self.n_steps}: change them"
            )
        if self.integrator not in INTEGRATORS:
            raise ValueError(f"expected an integrator of {', '.join(INTEGRATORS)}, got {self.integrator!r}: choose one")
        if not 0 <= self.jitter < 1 or not 0 < self.target_acceptance < 1:
            raise ValueError(
                f"expected 0 <= jitter < 1 and 0 < target_acceptance < 1, got {self.jitter} and "
                f"{self.target_acceptance}: try 0.1 and 0.8"
            )

    @property
    def action(self) -> Action:
        """The sum of the parts."""
        first, *others = self.actions
        return sum(others, start=first)

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        return State(x, self.action.energy(x), tuple(action.force(x) for action in self.actions))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        x, energy, forces = state
        field, method = self.action.field, INTEGRATORS[self.integrator]
        start = Phase(x, field.target.normal(x, generator), forces)
        end = trajectory(self.actions, start, self._step_size(x, generator), self.n_steps, method)
        end = end._replace(x=restored(field, end.x))
        new_energy = self.action.energy(end.x)
        delta = hamiltonian(field, new_energy, end.momentum) - hamiltonian(field, energy, start.momentum)
        delta = torch.where(delta.isnan(), torch.inf, delta)  # a diverged trajectory
        accepted = accept(-delta, generator)
        kept = tuple(select(accepted, new, old) for new, old in zip(end.forces, forces))
        new = State(select(accepted, end.x, x), select(accepted, new_energy, energy), kept)
        return new, Info(accepted.double(), delta)

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[NestedHMC, State]:
        def make(step_size: float) -> NestedHMC:
            return replace(self, step_size=step_size)

        return tune(make, self.step_size, self.target_acceptance, state, n_steps, generator)

    def _step_size(self, x: Tensor, generator: torch.Generator) -> float | Tensor:  # -> one, or (chains, 1, ...)
        if self.jitter == 0:
            return self.step_size
        shape = (len(x), *[1] * (x.ndim - 1))
        uniform = torch.rand(shape, generator=generator, dtype=x.real.dtype, device=x.device)
        return self.step_size * (1 + self.jitter * (2 * uniform - 1))

    @classmethod
    def examples(cls) -> Iterator[NestedHMC]:
        """SU(2) with its rectangles on the slow scale; φ⁴ with its quartic term on the fast one; O(3) in two parts."""
        from lattices.theories.free_field import FreeField
        from lattices.theories.on import ON
        from lattices.theories.phi4 import Phi4
        from lattices.theories.su_n_gauge import SUNGauge

        plaquettes, improved = SUNGauge((3, 3), 2, 2.0), SUNGauge((3, 3), 2, 2.0, rectangle=-1 / 12)
        yield cls((improved - plaquettes, plaquettes), 0.2, (3, 2))
        free, whole = FreeField((4, 4), mass_squared=1.0), Phi4((4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls((free, whole - free), 0.2, (3, 3), integrator="omf2", jitter=0.2)
        yield cls((ON((2, 3), 3, 0.2), ON((2, 3), 3, 0.8)), 0.3, (2, 2), jitter=0.2)


def hamiltonian(field: FieldSpace, energy: Tensor, momentum: Tensor) -> Tensor:
    """H = S + ½ ⟨p, p⟩ in float64, whatever the dtype of the field.  (chains,), (chains, *event) -> (chains,)"""
    p = momentum.to(torch.promote_types(momentum.dtype, torch.float64))
    return energy.double() + 0.5 * field.target.inner(p, p).flatten(1).sum(1)


def _check_target(field: FieldSpace) -> None:
    if not isinstance(field.target, Real | Circle | Sphere | Links):
        raise ValueError(
            f"expected an action on Real, Circle, Sphere or Links, got {field.target}: nothing moves there along "
            "trajectories, use another kernel"
        )
