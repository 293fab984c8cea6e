"""What one looks at in a theory: a file for every kind of field."""

from __future__ import annotations

from flows.quantities.gauge import GaugeQuantities
from flows.quantities.quantities import Average, Identity, Quantities, mean
from flows.quantities.scalar import ScalarQuantities
from lattices.action import Action

__all__ = ["Average", "GaugeQuantities", "Identity", "Quantities", "ScalarQuantities", "mean", "quantities"]


def quantities(action: Action) -> Quantities:
    """The quantities of a theory, by where its fields live: on links, or on sites."""
    return GaugeQuantities(action) if action.field.cells == "links" else ScalarQuantities(action)
