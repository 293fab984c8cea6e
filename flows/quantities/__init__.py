"""What one looks at in a theory: a file for every kind of field."""

from __future__ import annotations

from flows.quantities.densities import DensityQuantities, is_density
from flows.quantities.gauge import GaugeQuantities
from flows.quantities.quantities import Average, Identity, Quantities, mean
from flows.quantities.scalar import ScalarQuantities
from flows.quantities.spins import SpinQuantities
from lattices.action import Action
from lattices.fields import Circle, Sphere
from lattices.theories.clock import ClockSpins

__all__ = [
    "Average",
    "DensityQuantities",
    "GaugeQuantities",
    "Identity",
    "Quantities",
    "ScalarQuantities",
    "SpinQuantities",
    "mean",
    "quantities",
]


def quantities(action: Action) -> Quantities:
    """The quantities of a theory, by where its fields live: links, one sphere or torus, spins on sites, numbers."""
    if action.field.cells == "links":
        return GaugeQuantities(action)
    if is_density(action):
        return DensityQuantities(action)
    spins = isinstance(action.field.target, Circle | Sphere | ClockSpins)
    return SpinQuantities(action) if spins else ScalarQuantities(action)
