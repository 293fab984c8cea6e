"""c-concave potential maps: compositions of exponential maps of soft minima of squared distances."""

from __future__ import annotations

import torch

from flows.layers.exponential_map import ExponentialMap
from flows.transforms.potentials import SoftMinimumPotential
from lattices.fields import FieldSpace, Sphere


def concave_map(
    field: FieldSpace, n_components: int = 64, temperature: float = 0.3, dtype: torch.dtype = torch.float64
) -> ExponentialMap:
    """s(x) = exp_x(-∇φ(x)) with φ(x) = -γ log Σ_i exp[-(d(x, y_i)²/2 + a_i)/γ], distances rounded at antipodes.

    By McCann's theorem every optimal transport map of the sphere for the cost d²/2 is exp_x(-∇φ) with φ c-concave, and
    minima over finitely many y_i are dense among these: one layer can represent any density, a few train more easily.
    It is an `ExponentialMap` with a `SoftMinimumPotential`, which says how distances are rounded and why the map is a
    diffeomorphism. Parameters: n_components (D + 3) + 1, namely y_i, a_i and ρ_i of each component, and γ.

    Args:
        field: unit vectors on sites.
        n_components: how many y_i.
        temperature: γ at the start.
    References: S. Cohen, B. Amos & Y. Lipman, 2106.10272, sections 4 and 5; R. McCann (2001).
    """
    if not isinstance(field.target, Sphere):
        raise TypeError(f"expected unit vectors on sites, got {field}: use Sphere(2) for points on a globe")
    return ExponentialMap(field, SoftMinimumPotential(field.target.n + 1, n_components, temperature, dtype))
