"""Arguments of the oracles, checked once: extents of a periodic lattice, couplings, counts."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence


def checked_extents(extents: Sequence[int], max_dimension: int = 4) -> tuple[int, ...]:
    """Extents as a tuple of positive integers.

    Every oracle of this package sums over one bond per site and direction, from x to x + μ on the torus. So a
    direction of length 2 has *two* bonds between its two sites, one of length 1 a bond from a site to itself.
    """
    try:
        checked = tuple(operator.index(extent) for extent in extents)
    except TypeError as error:
        raise TypeError(f"expected a sequence of integers, got {extents!r}: pass extents as (4, 4)") from error
    if not 1 <= len(checked) <= max_dimension or min(checked) < 1:
        raise ValueError(
            f"expected 1 to {max_dimension} positive extents, got {checked}: pass one length per direction"
        )
    return checked


def checked_number(name: str, value: float, minimum: float = -math.inf) -> float:
    """A finite real number above or at a minimum."""
    if not math.isfinite(value) or value < minimum:
        bound = "" if minimum == -math.inf else f" >= {minimum}"
        raise ValueError(f"expected a finite {name}{bound}, got {value}: change {name}")
    return float(value)


def checked_count(name: str, value: int, minimum: int) -> int:
    """An integer above or at a minimum."""
    try:
        checked = operator.index(value)
    except TypeError as error:
        raise TypeError(f"expected an integer {name}, got {value!r}: pass {name}={minimum} or more") from error
    if checked < minimum:
        raise ValueError(f"expected {name} >= {minimum}, got {checked}: increase {name}")
    return checked
