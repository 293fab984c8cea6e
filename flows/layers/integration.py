"""Explicit Runge–Kutta methods with fixed steps for systems of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Fields = tuple[Tensor, ...]
Rates = Callable[[float, Fields], Fields]


@dataclass(frozen=True)
class Tableau:
    """A Butcher tableau: k_i = f(t + c_i h, y + h Σ_j a_ij k_j),  y(t + h) = y + h Σ_i b_i k_i."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]


def tableau(method: str) -> Tableau:
    """The tableau of "rk4" (4 stages), "dopri5" (6) or "dop853" (12); the last two are scipy's.

    References: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I (1993), II.1, II.5.
    """
    if method == "rk4":
        return Tableau(4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0))
    from scipy.integrate import DOP853, RK45

    solvers = {"dopri5": (5, RK45), "dop853": (8, DOP853)}
    if method not in solvers:
        raise ValueError(f"expected a method among rk4, dopri5, dop853, got {method!r}: choose one of them")
    order, solver = solvers[method]
    rows = tuple(tuple(map(float, row[:i])) for i, row in enumerate(solver.A))
    return Tableau(order, rows, tuple(map(float, solver.B)), tuple(map(float, solver.C)))


def integrate(rates: Rates, fields: Fields, times: tuple[float, float], n_steps: int, method: str) -> Fields:
    """Integrate d(fields)/dt = rates(t, fields) from times[0] to times[1] in n_steps equal steps.

    Cost: n_steps × stages evaluations. Error: O(h^order), measured by doubling n_steps.
    """
    scheme = tableau(method)
    start, h = times[0], (times[1] - times[0]) / n_steps
    for step in range(n_steps):
        fields = _step(rates, scheme, start + step * h, fields, h)
    return fields


def _step(rates: Rates, scheme: Tableau, t: float, fields: Fields, h: float) -> Fields:
    slopes: list[Fields] = []
    for row, c in zip(scheme.a, scheme.c):
        slopes.append(rates(t + c * h, _shifted(fields, slopes, row, h)))
    return _shifted(fields, slopes, scheme.b, h)


def _shifted(fields: Fields, slopes: list[Fields], weights: tuple[float, ...], h: float) -> Fields:
    """fields + h Σ_i weights_i slopes_i, without the terms of zero weight."""
    for weight, slope in zip(weights, slopes):
        if weight:
            fields = tuple(y + (h * weight) * k for y, k in zip(fields, slope))
    return fields
