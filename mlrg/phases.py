"""Phases and the critical surface: where the learned map carries couplings, and where that changes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlrg.couplings import CouplingSpace
from mlrg.fixed_points import FixedPoint
from mlrg.learning import Learned, Moderator


class FlowLine(NamedTuple):
    """J, M(J), M(M(J)), … until it leaves the region or stands still."""

    couplings: Tensor  # (n_points, n)
    left: bool

    def monotone(self, moderator: Moderator) -> Tensor:  # -> (n_points,)
        """C along the line, of a gradient flow: it must not rise."""
        monotone = getattr(moderator, "monotone", None)
        if monotone is None:
            raise ValueError("expected a GradientFlow, got a map without a monotone: learn one")
        return monotone(self.couplings).detach()


def flow_line(moderator: Moderator, space: CouplingSpace, start: Tensor, n_steps: int = 100) -> FlowLine:
    """Iterate the map from J (n,); the first point outside the region is the last of the line."""
    points = [space.require(start)]
    for _ in range(n_steps):
        points.append(moderator(points[-1][None])[0].detach())
        if not bool(space.contains(points[-1])):
            return FlowLine(torch.stack(points), True)
        if bool(((points[-1] - points[-2]).abs() < 1e-9 * space.scale).all()):
            break
    return FlowLine(torch.stack(points), False)


def sides(
    moderator: Moderator, space: CouplingSpace, critical: FixedPoint, starts: Tensor, n_steps: int = 100
) -> Tensor:  # (batch, n) -> (batch,) of -1, 0, +1
    """+1 or -1: on which side of the critical surface the flow line of each J ends; 0 if it stays at the fixed point.

    Measured by the left eigenvector of the relevant direction, whose component along J - J* doubles its distance
    whatever the irrelevant ones do; oriented along increasing first coupling.
    """
    values, vectors = torch.linalg.eig(critical.stability.T)
    left = vectors[:, values.abs().argmax()].real
    left = left * torch.where(left[0] < 0, -1.0, 1.0)
    ends = space.require(starts)
    for _ in range(n_steps):
        inside = space.contains(ends)
        if not bool(inside.any()):
            break
        ends = torch.where(inside[:, None], moderator(ends).detach(), ends)
    return torch.sign((ends - critical.couplings) @ left).long()


def side(moderator: Moderator, space: CouplingSpace, critical: FixedPoint, start: Tensor) -> int:
    """`sides` of one J (n,)."""
    return int(sides(moderator, space, critical, start[None]))


def critical_coupling(
    moderator: Moderator, space: CouplingSpace, critical: FixedPoint, ends: tuple[Tensor, Tensor], n_steps: int = 24
) -> Tensor:  # -> (n,)
    """Where the segment between two couplings crosses the critical surface, by bisection of where flow lines end."""
    low, high = ends
    sides = [side(moderator, space, critical, end) for end in ends]
    if sides[0] * sides[1] != -1:
        got = f"{low.tolist()} and {high.tolist()} on sides {sides}"
        raise ValueError(f"expected ends in different phases, got {got}: choose a segment that crosses the transition")
    if len(low) == 1:  # the surface is the fixed point itself
        return critical.couplings
    for _ in range(n_steps):
        middle = (low + high) / 2
        if side(moderator, space, critical, middle) == sides[1]:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def critical_couplings(
    learned: Learned, space: CouplingSpace, points: list[FixedPoint], ends: tuple[Tensor, Tensor]
) -> Tensor:  # -> (n_replicas found + 1, n)
    """`critical_coupling` of the moderator and of every replica, with its own fixed point: row 0 and the others."""
    rows = []
    for moderator, point in zip([learned.moderator, *learned.replicas], points):
        try:
            rows.append(critical_coupling(moderator, space, point, ends))
        except ValueError:
            if not rows:
                raise
    return torch.stack(rows)


def phase_map(moderator: Moderator, space: CouplingSpace, critical: FixedPoint, n: int = 40) -> tuple[Tensor, Tensor]:
    """A grid of couplings (n^k, k) over the region and the side that each flows to."""
    axes = [torch.linspace(a, b, n, dtype=torch.float64) for a, b in zip(space.lower, space.upper)]
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    return grid, sides(moderator, space, critical, grid)
