"""From finite lattices to the infinite one: how answers settle with the size and with the number of blockings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from lattices.statistics import Estimate


class Series(NamedTuple):
    """Answers on one common lattice from students of growing extent."""

    common: int
    extents: tuple[int, ...]
    estimates: tuple[Estimate, ...]


def infinite_volume(series: Sequence[Series], correction: float | None, shift: float = 0.0) -> dict[str, Any]:
    """The answer for L → ∞, from the series on the smallest common lattice (the most blockings).

        v(L) = v + a L^{-(ω + shift)}:    v = v_2 + (v_2 - v_1) / (r^{ω + shift} - 1),   r = L_2/L_1

    for the two largest students if ω is known; half of that shift is the systematic error. With one size only, or
    without ω, the value stands as it is and the systematic error is the difference between the two largest sizes, or
    between the two smallest common lattices, or unknown (null).

    Args:
        series: one for each common lattice.
        correction: ω of universal numbers.
        shift: added for couplings, whose corrections fall faster by L^{-y_t}.
    """
    best, *others = sorted(series, key=lambda s: s.common)
    order = sorted(range(len(best.extents)), key=lambda i: best.extents[i])
    last = best.estimates[order[-1]]
    value, statistical, systematic = last.value, last.error, _across(last, others, best.extents[order[-1]])
    if len(order) > 1:
        first, ratio = best.estimates[order[-2]], best.extents[order[-1]] / best.extents[order[-2]]
        if correction is None:
            systematic = abs(last.value - first.value)
        else:
            gain = 1 / (ratio ** (correction + shift) - 1)
            value += gain * (last.value - first.value)
            statistical = math.hypot((1 + gain) * last.error, gain * first.error)
            systematic = abs(value - last.value) / 2
    error = math.hypot(statistical, systematic or 0.0)
    return {"value": value, "error": error, "statistical": statistical, "systematic": systematic}


def _across(estimate: Estimate, others: Sequence[Series], extent: int) -> float | None:
    """How far the next common lattice's answer at the same extent is."""
    for series in others:
        if extent in series.extents:
            return abs(estimate.value - series.estimates[series.extents.index(extent)].value)
    return None
