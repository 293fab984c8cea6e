"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.sampling.integrators import INTEGRATORS, Phase, trajectory
from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import accept, select, tune
from lattices.action import Action
from lattices.fields import Circle, Real


@dataclass(frozen=True)
class HMC(Kernel):
    """Hamiltonian Monte Carlo: Gaussian momenta, a reversible trajectory, one accept step.

        H(x, p) = S(x) + ½ Σ p²,    accept with probability min(1, e^{-ΔH})

    The last force of a trajectory is kept for the next one, so a step costs n_steps forces (×2 for omf2, ×5 for
    omf4) and one energy, each of the cost of the action (V for local ones). `adapt` tunes the step size at fixed
    n_steps and freezes it; `step` never adapts.

    Args:
        action: a differentiable action on R, Rⁿ or S¹.
        step_size: ε > 0; the trajectory has length ε n_steps.
        n_steps: integrator steps per trajectory.
        integrator: "leapfrog", "omf2" (twice the forces, a tenth of the error) or "omf4" (for long trajectories).
        jitter: every chain draws its ε from step_size × [1 - jitter, 1 + jitter]: breaks periodic orbits.
        target_acceptance: what `adapt` aims at.

    References:
        S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, Phys. Lett. B 195 (1987) 216.
        I. P. Omelyan, I. M. Mryglod, R. Folk, Comput. Phys. Commun. 151 (2003) 272.
    """

    action: Action
    step_size: float
    n_steps: int
    integrator: str = "leapfrog"
    jitter: float = 0.0
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        if not isinstance(self.action.field.target, (Real, Circle)):
            raise ValueError(f"expected an action on Real or Circle, got {self.action.field.target}: no momenta there")
        if not 0 < self.step_size < float("inf") or not isinstance(self.n_steps, int) or self.n_steps < 1:
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

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        return State(x, self.action.energy(x), (self.action.force(x),))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        x, energy, (force,) = state
        momentum = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        start, method = Phase(x, momentum, force), INTEGRATORS[self.integrator]
        end = trajectory(self.action, start, self._step_size(x, generator), self.n_steps, method)
        new_energy = self.action.energy(end.x)
        delta = _hamiltonian(new_energy, end.momentum) - _hamiltonian(energy, momentum)
        delta = torch.where(delta.isnan(), torch.inf, delta)  # a diverged trajectory
        accepted = accept(-delta, generator)
        new = State(select(accepted, end.x, x), select(accepted, new_energy, energy))
        return new._replace(extra=(select(accepted, end.force, force),)), Info(accepted.double(), delta)

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[HMC, State]:
        def make(step_size: float) -> HMC:
            return replace(self, step_size=step_size)

        return tune(make, self.step_size, self.target_acceptance, state, n_steps, generator)

    def _step_size(self, x: Tensor, generator: torch.Generator) -> float | Tensor:  # -> one, or (chains, 1, ...)
        if self.jitter == 0:
            return self.step_size
        shape = (len(x), *[1] * (x.ndim - 1))
        uniform = torch.rand(shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.step_size * (1 + self.jitter * (2 * uniform - 1))

    @classmethod
    def examples(cls) -> Iterator[HMC]:
        """φ⁴ by every integrator, with and without jitter."""
        from lattices.theories.phi4 import Phi4

        action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls(action, step_size=0.1, n_steps=10)
        yield cls(action, step_size=0.2, n_steps=5, integrator="omf2", jitter=0.2)
        yield cls(action, step_size=0.3, n_steps=3, integrator="omf4")


def _hamiltonian(energy: Tensor, momentum: Tensor) -> Tensor:  # (chains,), (chains, *event) -> (chains,)
    """H in float64, whatever the dtype of the field."""
    return energy.double() + 0.5 * momentum.double().square().flatten(1).sum(1)
