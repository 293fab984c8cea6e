"""Fixed points of a learned map of couplings: J* = M(J*), by Newton's method from many starts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlrg.couplings import CouplingSpace
from mlrg.learning import Moderator


class FixedPoint(NamedTuple):
    """A fixed point J* = M(J*) and its stability matrix ∂M/∂J."""

    couplings: Tensor  # (n,)
    stability: Tensor  # (n, n)

    @property
    def eigenvalues(self) -> Tensor:  # -> (n,) complex
        """Of the stability matrix, largest modulus first."""
        values = torch.linalg.eigvals(self.stability)
        return values[values.abs().argsort(descending=True)]

    @property
    def n_relevant(self) -> int:
        """How many directions leave the point: 0 for a sink (a phase), 1 for a critical point."""
        return int((self.eigenvalues.abs() > 1).sum())


def newton(moderator: Moderator, start: Tensor, n_steps: int = 50, tolerance: float = 1e-10) -> FixedPoint | None:
    """The fixed point that Newton's method on M(J) - J reaches from one start (n,); None if it reaches none."""
    couplings, eye = start.detach().clone(), torch.eye(len(start), dtype=start.dtype)
    for _ in range(n_steps):
        residual = moderator(couplings[None])[0].detach() - couplings
        slope = moderator.jacobian(couplings[None])[0] - eye
        step = torch.linalg.lstsq(slope, residual).solution
        bound = (moderator.scale / step.abs().clamp(min=1e-300)).min().clamp(max=1.0)
        couplings = couplings - bound * step
        if not couplings.isfinite().all():
            return None
        small = tolerance * moderator.scale
        if bool((step.abs() < small).all()):
            if bool((residual.abs() > 1e3 * small).any()):
                return None  # nowhere to go: a flat direction without a zero
            return FixedPoint(couplings, moderator.jacobian(couplings[None])[0])
    return None


def fixed_points(
    moderator: Moderator, space: CouplingSpace, generator: torch.Generator, n_starts: int = 50
) -> list[FixedPoint]:
    """All fixed points inside the region that Newton's method finds from random starts, the most relevant first."""
    found: list[FixedPoint] = []
    for start in space.sample(n_starts, generator):
        point = newton(moderator, start)
        if point is None or not bool(space.contains(point.couplings)):
            continue
        if all(float(space.unit(point.couplings).sub(space.unit(p.couplings)).norm()) > 1e-5 for p in found):
            found.append(point)
    return sorted(found, key=lambda p: -p.n_relevant)


def critical_point(moderator: Moderator, space: CouplingSpace, generator: torch.Generator) -> FixedPoint:
    """The fixed point with one relevant direction; a ValueError tells what there is instead."""
    points = fixed_points(moderator, space, generator)
    critical = [p for p in points if p.n_relevant == 1]
    if not critical:
        got = [(p.couplings.tolist(), p.n_relevant) for p in points] or "no fixed point"
        raise ValueError(f"expected one relevant direction at a fixed point in {space}, got {got}: teach nearer to it")
    return min(critical, key=lambda p: float(space.unit(p.couplings).norm()))
