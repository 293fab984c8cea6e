"""Symplectic integrators as data: alternating kicks (p += b ε F) and drifts (x moves by a ε p)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Sphere

_FAR = 0.01  # from the manifold: a trajectory that diverged, not rounding


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
    """A point of phase space, with the forces there: of every part of the action, the slowest first."""

    x: Tensor  # (chains, *event)
    momentum: Tensor  # (chains, *event), tangent
    forces: tuple[Tensor, ...]  # (chains, *event) each, tangent


def trajectory(
    actions: Sequence[Action],
    start: Phase,
    step_size: float | Tensor,
    n_steps: Sequence[int],
    method: Integrator,
) -> Phase:
    """Hamilton's equations ẋ = p, ṗ = -Σ ∂S_i/∂x for n_steps[0] steps of `step_size`, one for all or one per chain.

    The first action kicks; what drifts between its kicks is a trajectory of the others, n_steps[1] steps to a drift,
    and so on down to free motion. On a group p is in the algebra, and the force acts on it from the same side.
    """
    slowest, *faster = actions
    kicks, drifts = method.schedule(n_steps[0])
    x, momentum, (force, *forces) = start
    momentum = momentum + kicks[0] * step_size * force
    for drift, kick in zip(drifts, kicks[1:]):
        if faster:
            inner = Phase(x, momentum, tuple(forces))
            x, momentum, forces = trajectory(faster, inner, drift * step_size / n_steps[1], n_steps[1:], method)  # type: ignore[assignment]
        else:
            x, momentum = drifted(slowest.field, x, momentum, drift * step_size)
        force = slowest.force(x)
        momentum = momentum + kick * step_size * force
    return Phase(x, momentum, (force, *forces))


def drifted(
    field: FieldSpace, x: Tensor, momentum: Tensor, time: float | Tensor
) -> tuple[Tensor, Tensor]:  # (batch, *event) twice, one time or (batch, 1, …) -> (batch, *event) twice
    """Free motion along the geodesic, which carries its own momentum along: x → exp(t p) x, p → p but on spheres.

    x → x cos(|p| t) + p/|p| sin(|p| t),    p → p cos(|p| t) - |p| x sin(|p| t)
    """
    end = field.exp(x, time * momentum)
    if not isinstance(field.target, Sphere):
        return end, momentum
    speed = momentum.norm(dim=-1, keepdim=True)
    return end, momentum * (speed * time).cos() - speed * x * (speed * time).sin()


def restored(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
    """Unit vectors and SU(N) matrices that rounding has moved off their manifold, back on it.

        x ← x / |x|;    U ← U (3 - U†U) / 2,  U ← U (det U)^{-1/N}  (one Newton–Schulz step, then det = 1)

    What was off by rounding is on it to rounding; the move is of the size of rounding itself. Values that are far off
    become NaN. Other fields are returned as they are.
    """
    if isinstance(field.target, Sphere):
        norm = x.norm(dim=-1, keepdim=True)
        return torch.where((norm - 1).abs() < _FAR, x / norm, torch.nan)
    return _special_unitary(x) if x.is_complex() else x


def _special_unitary(x: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    gap = x.mH @ x - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    u = x - x @ gap / 2
    phase = torch.linalg.det(u).angle() / x.shape[-1]
    u = u * torch.polar(torch.ones_like(phase), -phase)[..., None, None]
    return torch.where(gap.abs().amax((-2, -1), keepdim=True) < _FAR, u, torch.nan)
