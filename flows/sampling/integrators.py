"""Symplectic integrators as data: alternating kicks (p += b ε F) and drifts (x moves by a ε p)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lattices.action import Action


@dataclass(frozen=True)
class Integrator:
    """One step B(b_0) A(a_1) B(b_1) … A(a_s) B(b_s) with palindromic coefficients: reversible and symplectic.

    The error of H along a trajectory of fixed length is O(ε^order); a step costs s forces.
    """

    kicks: tuple[float, ...]
    drifts: tuple[float, ...]
    order: int

    def schedule(self, n_steps: int) -> tuple[list[float], list[float]]:
        """All kicks and drifts of n_steps steps, the last kick of each merged with the first of the next."""
        first, *inner, last = self.kicks
        kicks = [first, *[*inner, last + first] * (n_steps - 1), *inner, last]
        return kicks, list(self.drifts) * n_steps


def _mirrored(kicks: tuple[float, ...], drifts: tuple[float, ...], order: int) -> Integrator:
    """The palindrome that starts with these kicks and drifts and has one more drift or kick in its middle."""
    if len(kicks) > len(drifts):  # the middle is a drift
        middle = 1 - 2 * sum(drifts)
        return Integrator((*kicks, *kicks[::-1]), (*drifts, middle, *drifts[::-1]), order)
    middle = 1 - 2 * sum(kicks)
    return Integrator((*kicks, middle, *kicks[::-1]), (*drifts, *drifts[::-1]), order)


_RHO, _THETA, _KICK, _LAMBDA = 0.2539785108410595, -0.03230286765269967, 0.08398315262876693, 0.6822365335719091

INTEGRATORS: dict[str, Integrator] = {
    "leapfrog": Integrator((0.5, 0.5), (1.0,), 2),
    "omf2": _mirrored((0.1931833275037836,), (0.5,), 2),
    "omf4": _mirrored((_KICK, _LAMBDA, 0.5 - _LAMBDA - _KICK), (_RHO, _THETA), 4),
}
"""Leapfrog, and the minimum-error splittings of Omelyan, Mryglod and Folk with two and five forces per step."""


class Phase(NamedTuple):
    """A point of phase space, with the force there."""

    x: Tensor  # (chains, *event)
    momentum: Tensor  # (chains, *event)
    force: Tensor  # (chains, *event)


def trajectory(action: Action, start: Phase, step_size: float | Tensor, n_steps: int, method: Integrator) -> Phase:
    """Hamilton's equations ẋ = p, ṗ = -∂S/∂x for n_steps of `step_size`, one for all or one for each chain."""
    kicks, drifts = method.schedule(n_steps)
    x, momentum, force = start
    momentum = momentum + kicks[0] * step_size * force
    for drift, kick in zip(drifts, kicks[1:]):
        x = action.field.exp(x, drift * step_size * momentum)
        force = action.force(x)
        momentum = momentum + kick * step_size * force
    return Phase(x, momentum, force)
