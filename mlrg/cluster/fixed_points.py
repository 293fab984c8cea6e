"""Fixed points of the exact step: Newton from many starts, and the exponents of its stability matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy import ndarray
from scipy.optimize import least_squares
from torch import Tensor
from torch.func import grad

from mlrg.cluster.plaquette import Plaquette, plaquette
from mlrg.cluster.step import ExactStep
from mlrg.cluster.transfer import scaling_dimensions

LOG_SCALE = 0.5 * math.log(2)  # b = √2


@dataclass(frozen=True)
class FixedPoint:
    """A fixed point J* of a step, its stability matrix and what is left of J'(J*) - J*.

    Args:
        couplings: J* (n,).
        stability: ∂J'/∂J at J* (n, n).
        residual: largest |J' - J|.
    """

    couplings: Tensor
    stability: Tensor
    residual: float

    def exponents(self) -> Tensor:
        """y = log|eigenvalue| / log √2 in descending order; positive ones are relevant."""
        values = torch.linalg.eigvals(self.stability).abs().sort(descending=True).values
        return values.clamp(min=1e-300).log() / LOG_SCALE

    def n_relevant(self) -> int:
        """The number of relevant directions; a sink has none."""
        return int((self.exponents() > 1e-6).sum())


def solve(
    step: Callable[[Tensor], Tensor], jacobian: Callable[[Tensor, Tensor], Tensor], start: Tensor, n_steps: int = 40
) -> FixedPoint:
    """Newton's method for J'(J) = J with steps of at most ½; look at `residual` before you believe the answer."""
    J, identity = start, torch.eye(len(start), dtype=start.dtype, device=start.device)
    for _ in range(n_steps):
        image = step(J)
        stability, gap = jacobian(J, image), image - J
        residual = gap.abs().max().item()
        if residual < 1e-10:
            break
        move = torch.linalg.lstsq(identity - stability, gap[:, None]).solution[:, 0]
        J = J + move * min(1.0, 0.5 / move.norm().item())
    return FixedPoint(J, stability, residual)


def fixed_points(step: ExactStep, starts: Tensor, tolerance: float = 1e-7) -> list[FixedPoint]:
    """The different fixed points that Newton reaches from the rows of `starts`, ferromagnetic ones first."""
    found: list[FixedPoint] = []
    for start in starts:
        point = solve(step, step.jacobian, start)
        new = all((point.couplings - other.couplings).abs().max() > 1e-4 for other in found)
        if point.residual < tolerance and point.couplings.abs().max() < 30 and new:
            found.append(point)
    return sorted(found, key=lambda point: -point.couplings[0].item())


def critical_point(step: ExactStep, starts: Tensor | None = None) -> FixedPoint:
    """The ferromagnetic fixed point with the fewest relevant directions, at least one; one in every case but S3.

    Starts lie on the A1-A1 axis, with all classes alike, if none are given.
    """
    if starts is None:
        starts = 1.6 * _axis(step.plaquette)[None]
    points = [point for point in fixed_points(step, starts) if point.couplings[0] > 1e-3 and point.n_relevant()]
    if not points:
        raise ValueError(
            f"expected a critical fixed point of {step.plaquette.bond.representation}, found none from "
            f"{len(starts)} starts: give other starts, or take the covariant branch"
        )
    return min(points, key=FixedPoint.n_relevant)


def flow(step: Callable[[Tensor], Tensor], J: Tensor, n_steps: int) -> Tensor:  # (n,) -> (n_steps + 1, n)
    """The couplings J, J', J'', …"""
    line = [J]
    for _ in range(n_steps):
        line.append(step(line[-1]))
    return torch.stack(line)


def critical_coupling_on_axis(step: ExactStep, low: float, high: float, tolerance: float = 1e-4) -> float:
    """The J of the pure A1-A1 model whose flow separates disorder from order, by bisection between two phases.

    Raises ValueError if both ends flow to the same phase.
    """
    phases = [_is_ordered(step, J) for J in (low, high)]
    if phases != [False, True]:
        raise ValueError(f"expected disorder at {low} and order at {high}, got ordered = {phases}: widen the interval")
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _is_ordered(step, middle) else (middle, high)
    return 0.5 * (low + high)


def scale_invariant_environment(group: str = "S2", width: int | None = None) -> float:
    """The environment e whose fixed point shows one Δσ at two widths: scale invariance, asked of the spectrum.

        ∂KL/∂J'(J, J; e) = 0   and   Δσ(w) = Δσ(w + 1)   for the transfer matrix of the teacher at J, in A1

    Nothing is put in by hand; as w grows the condition can only hold at the true critical point.

    Args:
        group: of the spins.
        width: w; by default w + 1 is `widest(group)`.
    References: M. P. Nightingale, J. Appl. Phys. 53 (1982) 7927 (the condition, there on the temperature).
    """
    model, w = plaquette(group), widest(group) - 1 if width is None else width

    def conditions(unknown: ndarray) -> list[float]:
        J, step = torch.from_numpy(unknown[:-1].copy()), ExactStep(model, max(float(unknown[-1]), 0.0))
        weight = model.teacher(J)
        mismatch = scaling_dimensions(weight, w) - scaling_dimensions(weight, w + 1)
        return [*grad(step.divergence, argnums=1)(J, J).tolist(), mismatch.item()]

    start = [*(1.6 * _axis(model)).tolist(), 0.5]
    bounds = ([0.0] * len(start), [8.0] * (len(start) - 1) + [2.0])
    found = least_squares(conditions, start, bounds=bounds, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    if max(map(abs, found.fun)) > 1e-8:
        raise ValueError(
            f"expected a scale-invariant environment of {group} at widths {w} and {w + 1}, found none "
            f"(residual {max(map(abs, found.fun)):.1e}): pass an environment, or other widths"
        )
    return float(found.x[-1])


def widest(group: str) -> int:
    """The plaquettes around a cylinder whose transfer matrix has at most 256 rows, representation A1."""
    return int(math.log(256.5) / math.log(plaquette(group).n_states))


def _axis(model: Plaquette) -> Tensor:
    """The first class coupling of the first fusion (A1 with A1): all classes together."""
    axis = torch.zeros(model.bond.n_couplings, dtype=torch.float64)
    axis[: len(model.bond.spins.kernel)] = 1.0
    return axis


def _is_ordered(step: ExactStep, J: float, n_steps: int = 60) -> bool:
    """Whether the flow from J on the axis runs to Δσ → 0 (order) or to Δσ → ∞ (disorder)."""
    couplings = J * _axis(step.plaquette)
    for _ in range(n_steps):
        couplings = step(couplings)
        gap = scaling_dimensions(step.plaquette.student(couplings)).item()
        if not 0.01 < gap < 0.5:
            break
    return gap < 0.125
