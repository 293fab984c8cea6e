"""Observables of scalar fields: functions of a batch that return one value (or one correlator) per configuration.

Averages over configurations, and functions of averages such as `binder_cumulant`, belong to `lattices.statistics`:

    values = scalar_observables(x)
    jackknife(binder_cumulant, values["magnetisation_squared"], values["magnetisation_fourth"])
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lattices.action import Action
from lattices.theories.neighbours import axial, forward_sum

Number = TypeVar("Number", float, np.ndarray, Tensor)


def magnetisation(x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
    """M = V⁻¹ Σ_x φ_x."""
    return x.flatten(1).mean(1)


def absolute_magnetisation(x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
    """|M|, the order parameter of a finite lattice, where ⟨M⟩ = 0."""
    return magnetisation(x).abs()


def bond(x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
    """V⁻¹ Σ_x Σ_μ φ_x φ_{x+μ}: minus the energy per site of the Ising model."""
    return (x * forward_sum(x, axial(x.ndim - 1))).flatten(1).mean(1)


def energy_density(x: Tensor, action: Action) -> Tensor:  # (batch, *event) -> (batch,)
    """S(x) / V."""
    return action(x) / action.field.lattice.volume


def two_point_function(x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
    """G(δ) = V⁻¹ Σ_x φ_x φ_{x+δ} for every displacement δ, not connected; cost V log V."""
    axes = tuple(range(1, x.ndim))
    power = torch.fft.rfftn(x, dim=axes).abs().square()
    return torch.fft.irfftn(power, s=x.shape[1:], dim=axes) / x[0].numel()


def time_slice_correlator(x: Tensor, axis: int = -1) -> Tensor:  # (batch, *extents) -> (batch, extents[axis])
    """C(t) = Σ_{δ: δ_axis = t} G(δ), the correlator of slices at zero momentum: decays like e^{-mt}, m the mass.

    Args:
        axis: the lattice axis that is time, -1 for the last.
    """
    slices = x.movedim(_lattice_axis(x, axis), 1)
    n_transverse = slices[0, 0].numel()
    return two_point_function(slices.flatten(2).mean(2) if slices.ndim > 2 else slices) * n_transverse


def structure_factor(x: Tensor, axis: int = -1, mode: int = 1) -> Tensor:  # (batch, *extents) -> (batch,)
    """V⁻¹ |Σ_x φ_x e^{-ikx}|² at k = 2π mode / L along one axis: V M² at mode 0, the smallest momentum at 1."""
    slices = x.movedim(_lattice_axis(x, axis), 1).flatten(2).sum(2) if x.ndim > 2 else x
    angle = 2 * math.pi * mode / slices.shape[1] * torch.arange(slices.shape[1], device=x.device, dtype=torch.float64)
    wave = torch.stack([angle.cos(), angle.sin()], 1).to(x)
    return (slices @ wave).square().sum(1) / x[0].numel()


def scalar_observables(x: Tensor) -> dict[str, Tensor]:  # (batch, *extents) -> {name: (batch,)}
    """The usual single numbers of each configuration.

    M, |M|, M², M⁴, φ², φ⁴ (site means), the bond energy, and the structure factors S(0) = V M² and S(k₁) at the
    smallest momentum, averaged over the longest axes. ⟨S(0)⟩ is the susceptibility of the symmetric phase.
    """
    m = magnetisation(x)
    square = x.square().flatten(1)
    longest = [axis for axis in range(-(x.ndim - 1), 0) if x.shape[axis] == max(x.shape[1:])]
    return {
        "magnetisation": m,
        "absolute_magnetisation": m.abs(),
        "magnetisation_squared": m**2,
        "magnetisation_fourth": m**4,
        "phi_squared": square.mean(1),
        "phi_fourth": square.square().mean(1),
        "bond": bond(x),
        "structure_factor_zero": x[0].numel() * m**2,
        "structure_factor_one": torch.stack([structure_factor(x, axis) for axis in longest]).mean(0),
    }


def susceptibility(magnetisation_squared: Number, absolute: Number, volume: int) -> Number:
    """χ = V (⟨M²⟩ - ⟨|M|⟩²), connected; elementwise in the averages."""
    return volume * (magnetisation_squared - absolute**2)


def binder_cumulant(magnetisation_squared: Number, magnetisation_fourth: Number) -> Number:
    """U₄ = 1 - ⟨M⁴⟩ / 3⟨M²⟩²: 0 for a Gaussian, 2/3 in the ordered phase; elementwise in the averages."""
    return 1 - magnetisation_fourth / (3 * magnetisation_squared**2)


def correlation_length(at_zero: Number, at_one: Number, extent: int) -> Number:
    """Second-moment correlation length ξ = √(S(0)/S(k₁) - 1) / (2 sin(π/L)); elementwise in the averages.

    Exactly 1/m for the free field.

    Args:
        at_zero: ⟨S(0)⟩, "structure_factor_zero" of `scalar_observables`.
        at_one: ⟨S(k₁)⟩, "structure_factor_one".
        extent: L, the longest extent.
    """
    return (at_zero / at_one - 1) ** 0.5 / (2 * math.sin(math.pi / extent))


def _lattice_axis(x: Tensor, axis: int) -> int:
    d = x.ndim - 1
    if not -d <= axis < d:
        raise ValueError(f"expected a lattice axis from {-d} to {d - 1}, got {axis}: the batch axis does not count")
    return 1 + axis % d
