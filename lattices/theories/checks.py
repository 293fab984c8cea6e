"""What every theory checks when it is made: a lattice it can live on, couplings that are numbers, a finite Z."""

from __future__ import annotations

import math
from collections.abc import Collection
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


def check_positive(name: str, value: float) -> None:
    """Raise unless `value`, which makes K̃ = K + α positive definite, is a positive finite number."""
    check_finite(name, value)
    if value <= 0:
        raise ValueError(f"expected {name} > 0, got {value}: K̃ must be positive definite, try 0.3 or more")


def check_diagonal(extents: tuple[int, ...], diagonal: object) -> None:
    """Raise if there is a coupling of next-nearest neighbours in one dimension, which has none."""
    if diagonal and len(extents) < 2:
        raise ValueError(f"expected two or more extents for a diagonal coupling, got {extents}: leave it out")


def check_names(family: Any, known: Collection[str]) -> None:
    """`extents` and `names` of a family become tuples: those of a lattice, and different ones out of `known`."""
    object.__setattr__(family, "extents", Lattice(family.extents).extents)
    object.__setattr__(family, "names", tuple(family.names))
    names = family.names
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(f"expected different names out of {tuple(known)}, got {names}: pick from them")
    check_diagonal(family.extents, "diagonal" in names)


def check_stable(*leading: tuple[str, float]) -> None:
    """Raise unless the first coupling that is not zero, from the highest power of the field down, is positive."""
    names = [name for name, _ in leading]
    decisive = next((i for i, (_, value) in enumerate(leading) if value != 0), len(leading) - 1)
    if leading[decisive][1] <= 0:
        raise ValueError(
            f"expected an action bounded from below, got {names[decisive]} = {leading[decisive][1]:g}: "
            f"exp(-S) has no finite integral, make {' or '.join(names[: decisive + 1])} positive"
        )
