"""The quantities of spins on circles and spheres: energy, magnetisation, stiffness, vortices, charge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from flows import plots, spin_plots
from flows.quantities.gauge import charge_probabilities
from flows.quantities.quantities import Average, Identity, Quantities, mean
from flows.tables import Column
from lattices.action import Action
from lattices.exact import (
    SpinSolution,
    clock_torus,
    heisenberg_strip,
    on_link,
    on_square,
    spin_ring,
    xy_torus,
)
from lattices.fields import Circle, FieldSpace
from lattices.observables import binder_cumulant
from lattices.spin_observables import (
    bonds,
    correlation_length,
    helicity_modulus,
    specific_heat,
    spin_observables,
    time_slice_correlator,
)
from lattices.spins import require_spins
from lattices.statistics import Estimate, chain_function, jackknife
from lattices.theories.clock import Clock, ClockSpins
from lattices.theories.on import ON
from lattices.theories.xy import XY

ROWS = {
    "energy": "⟨E⟩",
    "magnetisation": "⟨|m|⟩",
    "structure_factor_zero": "V⟨m²⟩",
    "stiffness": "Υ",
    "vortex_density": "vortices",
    "charge": "⟨Q⟩",
    "charge_squared": "⟨Q²⟩",
    "schwinger_dyson": "⟨∇B·∇S - ∇²B⟩/V",
}
WIDEST = 20.0
"""W² |β| of a torus W × L, up to which its transfer matrix takes seconds."""


@dataclass(frozen=True)
class SpinQuantities(Quantities):
    """`spin_observables`, correlator and correlation length; for nearest neighbours alone stiffness and specific heat.

    E is -Σ s·s' over nearest neighbours per site, whatever the action. Clock spins are angles.
    """

    @property
    def spins(self) -> FieldSpace:
        """The space of angles or unit vectors."""
        field = self.action.field
        return replace(field, target=Circle()) if isinstance(field.target, ClockSpins) else field

    def measure(self, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch, …)}
        """The correlator C(t) is for t = 0 … L/2."""
        extents = self.spins.lattice.extents
        measured = spin_observables(self.spins, x)
        measured["correlator"] = time_slice_correlator(self.spins, x)[:, : extents[-1] // 2 + 1]
        if isinstance(self.action, XY | ON | Clock):
            longest = [axis for axis, extent in enumerate(extents) if extent == max(extents)]
            measured["stiffness"] = helicity_modulus(self.spins, x, self.action.beta)[:, longest].mean(1)
        if self.identity:
            measured["schwinger_dyson"] = bond_balance(self.action, x)
        return measured

    def rows(self, measured: Mapping[str, Tensor], average: Average) -> dict[str, Estimate]:
        lattice, beta = self.spins.lattice, getattr(self.action, "beta", 0.0)
        m2, m4 = measured["magnetisation_squared"], measured["magnetisation_fourth"]
        rows = {row: mean(average, measured[name]) for name, row in ROWS.items() if name in measured}
        factors = measured["structure_factor_zero"], measured["structure_factor_one"]
        rows["ξ"] = second_moment_length(average, *factors, extent=max(lattice.extents))
        rows["U₄"] = average(binder_cumulant, m2, m4)
        if beta and isinstance(self.action, XY | ON | Clock):
            heat = partial(specific_heat, beta=beta, volume=lattice.volume)
            rows["C"] = average(heat, measured["energy"], measured["energy_squared"])
        return rows | {f"C({t})": mean(average, values) for t, values in enumerate(measured["correlator"].unbind(-1))}

    def exact(self) -> dict[str, float]:
        """The identity; the solution of rings, of narrow tori of XY and clock spins, of 2 × L with three components."""
        found = {ROWS["schwinger_dyson"]: 0.0} if self.identity else {}
        solution = _solved(self.action)
        if solution is None:
            return found
        found |= {"log Z": solution.log_z, "⟨E⟩": solution.energy}
        known = solution.magnetisation_squared == solution.magnetisation_squared
        return found | ({"V⟨m²⟩": solution.magnetisation_squared * self.spins.lattice.volume} if known else {})

    @property
    def identity(self) -> Identity | None:
        discrete = isinstance(self.action.field.target, ClockSpins)
        return None if discrete else Identity("⟨∇B·∇S - ∇²B⟩ = 0", "schwinger_dyson", 0.0)

    @property
    def slow(self) -> tuple[str, str]:
        return "m²", "magnetisation_squared"

    def start(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *event)
        """A hot start: independent spins."""
        return self.action.field.random(n, generator)

    def draw(self, columns: Sequence[Column], samples: Mapping[str, Tensor], indices: Tensor, folder: Path) -> None:
        """Correlator, Metropolis chain, energy, charge; the last spins of the chain if `samples` holds fields "x"."""
        plots.correlator(columns, folder / "correlator.png")
        plots.metropolis_history(samples["energy"], indices, folder / "metropolis.png", "E")
        log_weights, exact = samples["log_weights"], self.exact().get("⟨E⟩")
        spin_plots.energy_histogram(samples["energy"], log_weights, indices, exact, folder / "energy.png")
        if "charge" in samples:
            weighted = partial(jackknife, log_weights=log_weights)
            histograms = {
                "flow, reweighted": charge_probabilities(samples["charge"], weighted),
                "flow, Metropolis": charge_probabilities(samples["charge"][indices][None], chain_function),
            }
            plots.charge_histogram(histograms, {}, folder / "charge.png")
        if "x" in samples:
            spin_plots.configuration(self.spins, samples["x"][indices[-1]], folder / "configuration.png")


def second_moment_length(average: Average, at_zero: Tensor, at_one: Tensor, extent: int) -> Estimate:
    """ξ from the structure factors; 0 of unknown error where the larger one is not that at zero."""
    ratio = average(lambda zero, one: zero / one, at_zero, at_one)
    if ratio.value <= 1:
        return Estimate(0.0, math.inf, ratio.n)
    return average(partial(correlation_length, extent=extent), at_zero, at_one)


def bond_balance(action: Action, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """(∇B·∇S - ∇²B) / V of the bonds B = Σ s·s' between neighbours, ∇²B = -2(n - 1) B: zero on average for every S.

    Bonds of a spin to itself are constant and left out.
    """
    field, n = action.field, require_spins(action.field)
    along = [mu for mu, extent in enumerate(field.lattice.extents) if extent > 1]
    nearest = XY(field.lattice.extents, 1.0) if isinstance(field.target, Circle) else ON(field.lattice.extents, n, 1.0)
    total = bonds(field, x)[:, along].flatten(1).sum(1)
    downhill = field.target.inner(nearest.force(x), action.force(x)).flatten(1).sum(1)
    return (2 * (n - 1) * total - downhill) / field.lattice.volume


@cache
def _solved(action: Action) -> SpinSolution | None:
    """The exact solution, where there is one that takes seconds."""
    if not isinstance(action, XY | ON | Clock) or (isinstance(action, XY) and action.crystal):
        return None
    extents, beta, n = action.extents, action.beta, action.n if isinstance(action, ON) else 2
    narrow = len(extents) == 2 and min(extents) ** 2 * abs(beta) <= WIDEST and max(extents) <= 64
    if n == 2 and (narrow or len(extents) == 1):
        return clock_torus(extents, action.q, beta) if isinstance(action, Clock) else xy_torus(extents, beta)
    if len(extents) == 1:
        return spin_ring(on_link(n, beta), *extents)
    if n == 3 and narrow and min(extents) == 2 and abs(beta) <= 2:
        return heisenberg_strip(max(extents), beta)
    return on_square(n, beta) if extents == (2, 2) else None
