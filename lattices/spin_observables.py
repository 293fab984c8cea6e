"""Observables of angles and unit vectors on sites: functions of a field space and a batch, one value per configuration.

Averages over configurations, and the errors of functions of averages such as `correlation_length`, belong to
`lattices.statistics`:

    values = spin_observables(field, x)
    jackknife(partial(correlation_length, extent=8), values["structure_factor_zero"], values["structure_factor_one"])
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

from lattices import observables
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.observables import Number
from lattices.spins import require_spins, unit_vectors


def spin_components(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n, *extents)
    """The n components of the unit vectors, as scalar fields."""
    require_spins(field)
    return unit_vectors(field, x).movedim(-1, 1)


def bonds(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, d, *extents)
    """s_x·s_{x+μ} of every link."""
    s = spin_components(field, x)
    return torch.stack([(s * s.roll(-1, axis)).sum(1) for axis in field.lattice.axes], 1)


def energy(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """E = -V⁻¹ Σ_x Σ_μ s_x·s_{x+μ} per site: -d in order; divide by d for that of a link."""
    return -bonds(field, x).flatten(1).sum(1) / field.lattice.volume


def magnetisation(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n)
    """The vector m = V⁻¹ Σ_x s_x; only |m| is invariant under the global O(n)."""
    return spin_components(field, x).flatten(2).mean(2)


def two_point_function(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *extents)
    """G(δ) = V⁻¹ Σ_x s_x·s_{x+δ} for every displacement δ; G(0) = 1. Connected, as ⟨s⟩ = 0. Cost V log V."""
    return _summed(observables.two_point_function(spin_components(field, x).flatten(0, 1)), len(x))


def time_slice_correlator(field: FieldSpace, x: Tensor, axis: int = -1) -> Tensor:  # -> (batch, extents[axis])
    """C(t) = Σ_{δ: δ_axis = t} G(δ): decays like e^{-mt}, m the mass gap.

    Args:
        axis: the lattice axis that is time, -1 for the last.
    """
    return _summed(observables.time_slice_correlator(spin_components(field, x).flatten(0, 1), axis), len(x))


def structure_factor(field: FieldSpace, x: Tensor, axis: int = -1, mode: int = 1) -> Tensor:  # -> (batch,)
    """V⁻¹ |Σ_x s_x e^{-ikx}|² at k = 2π mode / L along one axis: χ = V m² at mode 0, F at mode 1."""
    return _summed(observables.structure_factor(spin_components(field, x).flatten(0, 1), axis, mode), len(x))


def vorticity(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, d(d-1)/2, *extents)
    """The winding -1, 0 or 1 of the angles around each plaquette (x, μ < ν), as whole numbers in the dtype of x.

        q_P = (2π)⁻¹ Σ_{links of P} [θ_{x+μ} - θ_x],    [·] the difference in [-π, π)

    They add to zero on every plane, and around every cube.

    Symmetries: global rotations, translations; odd under θ ↦ -θ.
    References: Kosterlitz and Thouless 1973, J. Phys. C 6, 1181.
    """
    if not isinstance(field.target, Circle) or field.lattice.dimension < 2:
        raise TypeError(f"expected angles in two or more dimensions, got {field}: vortices wind around plaquettes")
    steps = {axis: _principal(x.roll(-1, axis) - x) for axis in field.lattice.axes}
    planes = combinations(field.lattice.axes, 2)
    curls = [steps[mu] + steps[nu].roll(-1, mu) - steps[mu].roll(-1, nu) - steps[nu] for mu, nu in planes]
    return (torch.stack(curls, 1) / (2 * math.pi)).round()


def vortex_density(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
    """Vortices and antivortices per plaquette; 1/3 of random angles."""
    return vorticity(field, x).abs().flatten(1).mean(1)


def helicity_modulus(field: FieldSpace, x: Tensor, beta: float) -> Tensor:  # (batch, *event) -> (batch, d)
    """What averages to the helicity modulus Υ_μ, the stiffness against a twist along μ, at nearest neighbours' β.

        Υ_μ = 2/n ⟨Σ_x s_x·s_{x+μ}⟩/V - 2β/n(n-1) Σ_{a<b} ⟨(Σ_x s_x^a s_{x+μ}^b - s_x^b s_{x+μ}^a)²⟩/V

    the mean over the n(n-1)/2 planes to twist in; for XY ⟨cos⟩ - β ⟨(Σ sin)²⟩/V. Jumps from 2/πβ to 0 at the
    transition of XY in d = 2.

    Symmetries: translations, global O(n).
    References: Fisher, Barber, Jasnow 1973, Phys. Rev. A 8, 1111; Teitel and Jayaprakash 1983, Phys. Rev. B 27, 598.
    """
    s, volume, n = spin_components(field, x), field.lattice.volume, require_spins(field)
    products = [torch.einsum("ba...,bc...->bac", s, s.roll(-1, axis)) for axis in field.lattice.axes]  # Σ_x s^a s'^b
    overlaps = torch.stack([product.diagonal(dim1=1, dim2=2).sum(1) for product in products], 1)
    currents = torch.stack([(p - p.mT).square().sum((1, 2)) / 2 for p in products], 1)
    return (2 / n * overlaps - 2 * beta / (n * (n - 1)) * currents) / volume


def topological_charge(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, L, L', 3) -> (batch,)
    """How often O(3) spins in d = 2 cover the sphere: a whole number, in the dtype of x.

        Q = (4π)⁻¹ Σ_triangles A,    tan A/2 = s_1·(s_2 × s_3) / (1 + s_1·s_2 + s_2·s_3 + s_3·s_1)

    A in (-2π, 2π) is the oriented area of the spherical triangle; each plaquette is cut along its diagonal x, x+1+2.

    Symmetries: global rotations, translations, exchange of the axes up to a sign; odd under reflections of the spins. A
    reflection of one axis cuts along the other diagonals, which matters on rough fields.
    References: Berg and Lüscher 1981, Nucl. Phys. B 190, 412.
    """
    if field.target != Sphere(2) or field.lattice.dimension != 2:
        raise TypeError(f"expected unit vectors of three components in two dimensions, got {field}: they have a charge")
    require_spins(field)
    right, up = field.lattice_axes
    corner = x.roll((-1, -1), (right, up))
    areas = _area(x, x.roll(-1, right), corner) + _area(x, corner, x.roll(-1, up))
    return (areas.flatten(1).sum(1) / (4 * math.pi)).round()


def spin_observables(field: FieldSpace, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch,)}
    """The usual single numbers of each configuration.

    The energy per site and its square, |m|, m², m⁴, the structure factors χ = V m² and F at the smallest momentum (the
    mean over the longest axes), the vortex density of angles in d ≥ 2, and the charge of O(3) in d = 2 and its square.
    """
    square, e = magnetisation(field, x).square().sum(1), energy(field, x)
    extents = field.lattice.extents
    longest = [axis for axis in field.lattice.axes if extents[axis] == max(extents)]
    values = {
        "energy": e,
        "energy_squared": e**2,
        "magnetisation": square.sqrt(),
        "magnetisation_squared": square,
        "magnetisation_fourth": square**2,
        "structure_factor_zero": field.lattice.volume * square,
        "structure_factor_one": torch.stack([structure_factor(field, x, axis) for axis in longest]).mean(0),
    }
    if isinstance(field.target, Circle) and len(extents) > 1:
        values["vortex_density"] = vortex_density(field, x)
    if field.target == Sphere(2) and len(extents) == 2:
        charge = topological_charge(field, x)
        values |= {"charge": charge, "charge_squared": charge**2}
    return values


def specific_heat(energy_mean: Number, energy_squared: Number, beta: float, volume: int) -> Number:
    """C = β² V (⟨E²⟩ - ⟨E⟩²) per site, E the energy per site; elementwise in the averages."""
    return beta**2 * volume * (energy_squared - energy_mean**2)


def correlation_length(at_zero: Number, at_one: Number, extent: int) -> Number:
    """Second-moment correlation length ξ = √(χ/F - 1) / (2 sin(π/L)), elementwise in the averages; 0 where χ < F.

    Of a correlator u^|x| along one axis √u / (1 - u), which is near -1/log u if that is large.

    Args:
        at_zero: χ, the mean of "structure_factor_zero" of `spin_observables`.
        at_one: F, the mean of "structure_factor_one".
        extent: L, the longest extent.
    """
    excess = at_zero / at_one - 1
    return ((excess + abs(excess)) / 2) ** 0.5 / (2 * math.sin(math.pi / extent))


def _summed(values: Tensor, batch: int) -> Tensor:  # (batch n, ...) -> (batch, ...)
    """Summed over the components of the spins."""
    return values.unflatten(0, (batch, -1)).sum(1)


def _principal(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _area(a: Tensor, b: Tensor, c: Tensor) -> Tensor:  # (..., 3), (..., 3), (..., 3) -> (...)
    volume = (a * torch.linalg.cross(b, c)).sum(-1)
    return 2 * torch.atan2(volume, 1 + (a * b + b * c + c * a).sum(-1))
