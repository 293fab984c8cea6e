"""What every theory checks when it is made: a lattice it can live on, couplings that are numbers, a finite Z."""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Real
from typing import Any

from lattices.lattice import Lattice


def check_arguments(theory: Any) -> None:
    """`extents` becomes the tuple of a valid Lattice; every other field of the dataclass must be a finite number."""
    object.__setattr__(theory, "extents", Lattice(theory.extents).extents)
    for field in fields(theory):
        if field.name != "extents":
            check_finite(field.name, getattr(theory, field.name))


def check_finite(name: str, value: object) -> None:
    """Raise unless `value` is a finite real number."""
    if not isinstance(value, Real):
        raise TypeError(f"expected a number for {name}, got {value!r}: pass a float")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite {name}, got {value}: change {name}")


def check_stable(*leading: tuple[str, float]) -> None:
    """Raise unless the first coupling that is not zero, from the highest power of the field down, is positive."""
    names = [name for name, _ in leading]
    decisive = next((i for i, (_, value) in enumerate(leading) if value != 0), len(leading) - 1)
    if leading[decisive][1] <= 0:
        raise ValueError(
            f"expected an action bounded from below, got {names[decisive]} = {leading[decisive][1]:g}: "
            f"exp(-S) has no finite integral, make {' or '.join(names[: decisive + 1])} positive"
        )
