"""The usual single numbers of gauge configurations, one value for each: for histories, averages and histograms."""

from __future__ import annotations

import torch
from torch import Tensor

from lattices.field_strength import clover_charge, geometric_charge, has_geometric_charge
from lattices.fields import FieldSpace
from lattices.wilson_loops import plaquette, polyakov_loops


def gauge_observables(field: FieldSpace, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch,)}
    """Plaquette, Polyakov loop and, where there is one, the charge and its square.

    "plaquette" is the mean of Re Tr P / N, "polyakov_modulus" |mean P| along the shortest axes (averaged over equal
    ones), "charge" and "charge_squared" the geometric charge of U(1) in d = 2 and the clover charge in d = 4. Cost V.

    Symmetries: gauge, translations; charge is odd under reflections (and charge conjugation in d = 2), the rest even.
    """
    extents = field.lattice.extents
    shortest = [axis for axis, extent in enumerate(extents) if extent == min(extents)]
    moduli = [polyakov_loops(field, x, axis).flatten(1).mean(1).abs() for axis in shortest]
    values = {"plaquette": plaquette(field, x), "polyakov_modulus": torch.stack(moduli).mean(0)}
    if has_geometric_charge(field) or len(extents) == 4:
        charge = (geometric_charge if len(extents) == 2 else clover_charge)(field, x)
        values |= {"charge": charge, "charge_squared": charge**2}
    return values
