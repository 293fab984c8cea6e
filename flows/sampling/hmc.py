"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import tune
from flows.sampling.nested import NestedHMC
from lattices.action import Action


@dataclass(frozen=True)
class HMC(Kernel):
    """Hamiltonian Monte Carlo: Gaussian momenta, a reversible trajectory, one accept step.

        H(x, p) = S(x) + ½ Σ ⟨p, p⟩,    accept with probability min(1, e^{-ΔH})

    On a sphere p is tangent, and turns with x along the great circle of each drift. On a group p is in the algebra,
    U̇ = p U. There every trajectory ends with a projection on the manifold: a move of the size of rounding, before the
    energy that decides, so that reversibility holds to rounding too.

    The last force of a trajectory is kept for the next one, so a step costs n_steps forces (×2 for omf2, ×5 for
    omf4) and one energy, each of the cost of the action (V for local ones). `adapt` tunes the step size at fixed
    n_steps and freezes it; `step` never adapts.

    Args:
        action: a differentiable action on R, Rⁿ, S¹, Sⁿ or a group.
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
        self._nested()

    def init(self, x: Tensor) -> State:
        return self._nested().init(x)

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        return self._nested().step(state, generator)

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[HMC, State]:
        def make(step_size: float) -> HMC:
            return replace(self, step_size=step_size)

        return tune(make, self.step_size, self.target_acceptance, state, n_steps, generator)

    def _nested(self) -> NestedHMC:
        """The same dynamics, as the case of a single time scale."""
        settings = self.integrator, self.jitter, self.target_acceptance
        return NestedHMC((self.action,), self.step_size, (self.n_steps,), *settings)

    @classmethod
    def examples(cls) -> Iterator[HMC]:
        """φ⁴ by every integrator, with and without jitter; U(1) and SU(3); O(3) and XY."""
        from lattices.theories.on import ON
        from lattices.theories.phi4 import Phi4
        from lattices.theories.su_n_gauge import SUNGauge
        from lattices.theories.u1_gauge import U1Gauge
        from lattices.theories.xy import XY

        action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls(action, step_size=0.1, n_steps=10)
        yield cls(action, step_size=0.2, n_steps=5, integrator="omf2", jitter=0.2)
        yield cls(action, step_size=0.3, n_steps=3, integrator="omf4")
        yield cls(U1Gauge(extents=(4, 4), beta=2.0), step_size=0.2, n_steps=5, jitter=0.2)
        yield cls(SUNGauge(extents=(2, 2), n=3, beta=5.0), step_size=0.3, n_steps=3, integrator="omf2")
        yield cls(ON(extents=(4, 4), n=3, beta=1.2), step_size=0.3, n_steps=4, jitter=0.2)
        yield cls(XY(extents=(4, 4), beta=1.1, crystal=0.5), step_size=0.3, n_steps=3, integrator="omf2")
