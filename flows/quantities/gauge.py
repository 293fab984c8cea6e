"""The quantities of gauge theories: plaquette, Polyakov loop, topological charge and its whole distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from flows import plots
from flows.quantities.quantities import Average, Identity, Quantities, mean
from flows.tables import Column
from lattices.exact import gauge_torus_log_z, gauge_torus_plaquette, u1_charge_distribution, u1_charge_squared
from lattices.field_strength import has_geometric_charge
from lattices.gauge_observables import gauge_observables
from lattices.loops import PLAQUETTE
from lattices.statistics import Estimate, chain_function, jackknife
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.wilson import loop_sum

ROWS = {
    "plaquette": "⟨P⟩",
    "polyakov_modulus": "⟨|L|⟩",
    "charge": "⟨Q⟩",
    "charge_squared": "⟨Q²⟩",
    "schwinger_dyson": "⟨|∇S|² - ∇²S⟩/V",
}


@dataclass(frozen=True)
class GaugeQuantities(Quantities):
    """`gauge_observables`, and for Wilson's actions a Schwinger–Dyson equation."""

    def measure(self, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch,)}
        measured = gauge_observables(self.action.field, x)
        if isinstance(self.action, U1Gauge | SUNGauge):
            measured["schwinger_dyson"] = force_balance(self.action, x)
        return measured

    def rows(self, measured: Mapping[str, Tensor], average: Average) -> dict[str, Estimate]:
        return {row: mean(average, measured[name]) for name, row in ROWS.items() if name in measured}

    def exact(self) -> dict[str, float]:
        """The balance of forces; log Z and the plaquette of Wilson's action in the plane; ⟨Q²⟩ of U(1) there."""
        action, found = self.action, {ROWS["schwinger_dyson"]: 0.0} if self.identity else {}
        if not isinstance(action, U1Gauge | SUNGauge) or len(action.extents) != 2 or action.rectangle:
            return found
        arguments = (action.extents, action.n if isinstance(action, SUNGauge) else 1, action.beta)
        found |= {"log Z": gauge_torus_log_z(*arguments), "⟨P⟩": gauge_torus_plaquette(*arguments)}
        if isinstance(action, U1Gauge):
            found |= {"⟨Q⟩": 0.0, "⟨Q²⟩": u1_charge_squared(action.extents, action.beta)}
        return found

    @property
    def identity(self) -> Identity | None:
        known = isinstance(self.action, U1Gauge | SUNGauge)
        return Identity("⟨|∇S|² - ∇²S⟩ = 0", "schwinger_dyson", 0.0) if known else None

    @property
    def slow(self) -> tuple[str, str]:
        charged = has_geometric_charge(self.action.field) or self.action.field.lattice.dimension == 4
        return ("Q²", "charge_squared") if charged else ("P", "plaquette")

    def start(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *event)
        """A hot start: links from Haar measure."""
        return self.action.field.random(n, generator)

    def draw(self, columns: Sequence[Column], samples: Mapping[str, Tensor], indices: Tensor, folder: Path) -> None:
        plots.metropolis_history(samples["plaquette"], indices, folder / "metropolis.png", "P")
        if not has_geometric_charge(self.action.field):
            return
        weighted = partial(jackknife, log_weights=samples["log_weights"])
        histograms = {
            "flow, reweighted": charge_probabilities(samples["charge"], weighted),
            "flow, Metropolis": charge_probabilities(samples["charge"][indices][None], chain_function),
        }
        plots.charge_histogram(histograms, charge_distribution(self.action), folder / "charge.png")


def force_balance(action: U1Gauge | SUNGauge, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """(|∇S|² - ∇²S) / V, where ∇² Re Tr W = -n C_F Re Tr W of a loop of n links, C_F = (N² - 1) / 2N or 1."""
    field, force = action.field, action.force(x)
    casimir = (action.n**2 - 1) / (2 * action.n) if isinstance(action, SUNGauge) else 1.0
    plaquettes = -action.beta * (1 - 8 * action.rectangle) * loop_sum(field, x, PLAQUETTE)
    laplacian = -casimir * (6 * action.energy(x) - 2 * plaquettes)
    return (field.target.inner(force, force).flatten(1).sum(1) - laplacian) / field.lattice.volume


def charge_probabilities(charge: Tensor, average: Average) -> dict[int, Estimate]:  # (n,) or (n_chains, n_steps)
    """P(Q) of every charge that was seen, with its error."""
    seen = range(int(charge.min()), int(charge.max()) + 1)
    return {q: mean(average, (charge == q).double()) for q in seen if bool((charge == q).any())}


def charge_distribution(action: object) -> dict[int, float]:
    """The exact P(Q) of Wilson's U(1) in the plane; empty for other actions."""
    if isinstance(action, U1Gauge) and len(action.extents) == 2 and not action.rectangle:
        return u1_charge_distribution(action.extents, action.beta)
    return {}
