"""From finite lattices to the infinite one: how answers settle with the size and with the number of blockings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lattices.statistics import Estimate


class Series(NamedTuple):
    """Answers on one common lattice from students of growing extent."""

    common: int
    extents: tuple[int, ...]
    estimates: tuple[Estimate, ...]


def infinite_volume(series: Sequence[Series], correction: float | None, shift: float = 0.0) -> dict[str, Any]:
    """The answer for L → ∞, from the series on the smallest common lattice (the most blockings).

        v(L) = v + a L^{-(ω + shift)}

    by weighted least squares over all students if ω is known, the error inflated by √(χ²/dof) where sizes disagree;
    half of the way from the largest student is the systematic error. With one size only, or without ω, the value
    stands as it is and the systematic error is the difference between the two largest sizes, or between the two
    smallest common lattices, or unknown (null).

    Args:
        series: one for each common lattice.
        correction: ω of universal numbers.
        shift: added for couplings, whose corrections fall faster by L^{-y_t}.
    """
    best, *others = sorted(series, key=lambda s: s.common)
    order = sorted(range(len(best.extents)), key=lambda i: best.extents[i])
    extents, estimates = [best.extents[i] for i in order], [best.estimates[i] for i in order]
    last = estimates[-1]
    value, statistical, systematic = last.value, last.error, _across(last, others, extents[-1])
    if len(order) > 1 and correction is None:
        systematic = abs(last.value - estimates[-2].value)
    elif len(order) > 1 and correction is not None:
        value, statistical = _extrapolated(extents, estimates, correction + shift)
        systematic = abs(value - last.value) / 2
    error = math.hypot(statistical, systematic or 0.0)
    return {"value": value, "error": error, "statistical": statistical, "systematic": systematic}


def _extrapolated(extents: Sequence[int], estimates: Sequence[Estimate], power: float) -> tuple[float, float]:
    """v and its error from v(L) = v + a L^{-power}; exact estimates (error 0) count alike."""
    errors = np.array([e.error for e in estimates])
    weights = 1 / errors if (errors > 0).all() else np.ones(len(errors))
    design = np.array([[1.0, n**-power] for n in extents]) * weights[:, None]
    target = np.array([e.value for e in estimates]) * weights
    covariance = np.linalg.inv(design.T @ design)
    solution = covariance @ (design.T @ target)
    freedom = len(extents) - 2
    chi_squared = float(((design @ solution - target) ** 2).sum())
    inflation = max(1.0, (chi_squared / freedom) ** 0.5) if freedom else 1.0
    return float(solution[0]), inflation * float(covariance[0, 0]) ** 0.5 * bool((errors > 0).all())


def _across(estimate: Estimate, others: Sequence[Series], extent: int) -> float | None:
    """How far the next common lattice's answer at the same extent is."""
    for series in others:
        if extent in series.extents:
            return abs(estimate.value - series.estimates[series.extents.index(extent)].value)
    return None
