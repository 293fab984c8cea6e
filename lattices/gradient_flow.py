"""Wilson's gradient flow of link fields, its energy and charge, and the scales t₀ and w₀ read off them.

    dV_t/dt = Z(V_t) V_t,    Z = -g₀² ∂S_W(V) = 2N ∇ Σ_P Re Tr P / N    (U(1): ∇ Σ_P cos θ_P)

with β = 2N / g₀² (1 / g₀²) and ∇ in the metric of the algebra. So Z = (2N/β) × the force of Wilson's action whatever
the action of the ensemble, weak transverse plane waves decay like e^{-k̂² t}, and t has units of a².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from lattices.field_strength import clover_charge, energy_density, has_geometric_charge
from lattices.fields import FieldSpace
from lattices.gauge import require_links
from lattices.loops import PLAQUETTE
from lattices.statistics import Estimate, jackknife
from lattices.theories.wilson import loop_gradient


@dataclass(frozen=True)
class FlowHistory:
    """What was measured along the flow of a batch.

    Args:
        times: t in units of a²: (n_times,).
        clover: t² E averaged over the lattice, E of the clover: (batch, n_times).
        plaquette: the same with E of the plaquettes.
        charge: Q of the clover, or None where there is no charge density.
        links: the fields at the last time.
    """

    times: Tensor
    clover: Tensor
    plaquette: Tensor
    charge: Tensor | None
    links: Tensor


def wilson_velocity(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
    """Z(V) in the algebra: downhill of the plaquette energy, d(Σ_x E)/dt = -⟨Z, Z⟩."""
    return (2 * field.target.shape[0] if field.target.shape else 1) * loop_gradient(field, x, PLAQUETTE)


def flow_step(field: FieldSpace, x: Tensor, step: float) -> tuple[Tensor, float]:  # -> (batch, *event), error
    """One step of Lüscher's third-order Runge–Kutta method, and how far an embedded second-order step ends from it.

        W₁ = e^{Z₀/4} V;    W₂ = e^{8Z₁/9 - 17Z₀/36} W₁;    V' = e^{3Z₂/4 - 8Z₁/9 + 17Z₀/36} W₂

    with Z_i = ε Z(W_i); the embedded step is e^{2Z₁ - Z₀} V. The error is the largest over links and batch. Cost
    three gradients.

    References: Lüscher 2010, arXiv:1006.4518, eq. (C.2); Fritzsch and Ramos 2013, arXiv:1301.4388, appendix D.
    """
    z0 = step * wilson_velocity(field, x)
    y = field.exp(x, z0 / 4)
    z1 = step * wilson_velocity(field, y)
    y = field.exp(y, 8 / 9 * z1 - 17 / 36 * z0)
    z2 = step * wilson_velocity(field, y)
    y = field.exp(y, 3 / 4 * z2 - 8 / 9 * z1 + 17 / 36 * z0)
    return y, _distance(field, y, field.exp(x, 2 * z1 - z0))


def gradient_flow(
    field: FieldSpace, x: Tensor, times: Sequence[float] | Tensor, step: float = 0.02, tolerance: float | None = None
) -> FlowHistory:
    """Flow a batch through the given times and measure at each. Cost three gradients per step.

    Args:
        field: links of U(1) or SU(N), in any dimension.
        x: the configurations at t = 0.
        times: increasing, from 0 on, in units of a².
        step: the largest ε; with a tolerance the first one. Much above 0.1 the method is unstable.
        tolerance: of the error of each step (`flow_step`), which then sets the step; None for steps of one size.

    Symmetries: commutes with all symmetries of Wilson's action.
    References: Lüscher 2010, arXiv:1006.4518.
    """
    moments = _checked_times(field, times, step, tolerance)
    x, now, rows = field.validate(x), 0.0, []
    for moment in moments:
        x, step = _flow_until(field, x, moment - now, step, tolerance)
        now = moment
        rows.append([moment**2 * energy_density(field, x, clover).flatten(1).mean(1) for clover in (True, False)])
        if field.lattice.dimension == 4 or has_geometric_charge(field):
            rows[-1].append(clover_charge(field, x))
    columns = [torch.stack(column, 1) for column in zip(*rows)]
    charge = columns[2] if len(columns) == 3 else None
    return FlowHistory(torch.tensor(moments, dtype=torch.float64), columns[0], columns[1], charge, x)


def t0(times: Tensor, t2_energy: Tensor, reference: float = 0.3, block_length: int = 1) -> Estimate:
    """The time t₀ at which t² ⟨E⟩ first reaches the reference, by a cubic spline, with a jackknife error.

    Args:
        times: (n_times,), at least four of them, that bracket t₀.
        t2_energy: t² E of independent configurations, `clover` of a `FlowHistory`: (n, n_times).
        reference: the value of t² ⟨E⟩; 0.3 is that of QCD.
        block_length: configurations per jackknife block.

    References: Lüscher 2010, arXiv:1006.4518, eq. (5.1).
    """
    knots = times.numpy()
    return _crossing(times, t2_energy, block_length, lambda curve: CubicSpline(knots, curve - reference))


def w0(times: Tensor, t2_energy: Tensor, reference: float = 0.3, block_length: int = 1) -> Estimate:
    """w₀ = √t where t d/dt t² ⟨E⟩ first reaches the reference; arguments of `t0`.

    References: Borsanyi et al. 2012, arXiv:1203.4469, eq. (1.2).
    """
    knots = times.numpy()
    return _crossing(
        times,
        t2_energy,
        block_length,
        lambda curve: CubicSpline(knots, knots * CubicSpline(knots, curve)(knots, 1) - reference),
        math.sqrt,
    )


def _crossing(
    times: Tensor,
    t2_energy: Tensor,
    block_length: int,
    spline: Callable[[np.ndarray], CubicSpline],
    scale: Callable[[float], float] = float,
) -> Estimate:
    """Jackknife of the first root of a spline through the means at all times."""
    if t2_energy.ndim != 2 or len(times) != t2_energy.shape[1] or len(times) < 4:
        shape = tuple(t2_energy.shape)
        raise ValueError(f"expected (n, n_times >= 4) values at as many times, got {shape}: measure more times")

    def first_root(*means: np.ndarray) -> np.ndarray:
        curves = np.reshape(np.stack(means), (len(means), -1))
        roots = [spline(curve).roots(extrapolate=False) for curve in curves.T]
        if not all(len(root) for root in roots):
            ends = f"{times[0]:g} to {times[-1]:g}"
            raise ValueError(f"expected times that bracket the reference, got no crossing from {ends}: flow longer")
        return np.reshape([scale(root.min()) for root in roots], np.shape(means[0]))

    return jackknife(first_root, *t2_energy.unbind(1), block_length=block_length)


def _flow_until(
    field: FieldSpace, x: Tensor, duration: float, step: float, tolerance: float | None
) -> tuple[Tensor, float]:
    """Flow for a time; also the step to go on with. Steps of one size divide the time evenly."""
    if tolerance is None:
        n_steps = math.ceil(duration / step - 1e-9)
        for _ in range(n_steps):
            x, _ = flow_step(field, x, duration / n_steps)
        return x, step
    left = duration
    while left > 1e-12 * duration:
        tried = min(step, left)
        y, error = flow_step(field, x, tried)
        if error <= tolerance:
            x, left = y, left - tried
        if error > tolerance or tried == step:
            step = tried * min(2.0, 0.95 * (tolerance / max(error, 1e-300)) ** (1 / 3))
    return x, step


def _distance(field: FieldSpace, x: Tensor, y: Tensor) -> float:
    """The largest over links of |x - y|, of angles on the circle."""
    difference = x - y
    return float((difference if x.is_complex() else 2 * (difference / 2).sin()).abs().max())


def _checked_times(
    field: FieldSpace, times: Sequence[float] | Tensor, step: float, tolerance: float | None
) -> list[float]:
    require_links(field)
    moments = [float(t) for t in times]
    if not moments or moments[0] < 0 or any(a >= b for a, b in pairwise(moments)):
        raise ValueError(f"expected increasing times from 0 on, got {moments}: sort them")
    if not 0 < step < math.inf or (tolerance is not None and not 0 < tolerance < math.inf):
        raise ValueError(f"expected positive step and tolerance, got {step} and {tolerance}: try step=0.02")
    return moments
