"""The gauge benchmark cases: targets, recipes and the figures they have to reach.

To add a case: a recipe if none of those below fits, and a line in CASES with the configurations of its stages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from cases import Case

from flows.architectures.gauge_continuous import GaugeContinuous
from flows.configuration import Configuration
from flows.updates.natural import NaturalGradient
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge

Gauge = U1Gauge | SUNGauge


class Recipe(NamedTuple):
    """How a theory is learnt: what the flow is made of, and how long and how carefully it is trained."""

    flow: GaugeContinuous
    update: NaturalGradient
    n_steps: int

    def on(self, theory: Gauge) -> Configuration:
        return Configuration(theory, self.flow, self.update, self.n_steps)


U1_UPDATE = NaturalGradient(n_samples=2048, chunk=256, trust=1.0)
SUN_UPDATE = NaturalGradient(n_samples=1536, chunk=256, trust=1.0)
U1_FLOW = GaugeContinuous(n_powers=3, radius=2.0, n_times=2, n_steps=4, base="heat-kernel")
SUN_FLOW = GaugeContinuous(n_powers=3, radius=1.5, pairs=True, n_times=2, n_steps=4, base="heat-kernel")
CARRIED = replace(SUN_UPDATE, n_samples=768, chunk=64)

RECIPES = {
    "u1": Recipe(U1_FLOW, U1_UPDATE, 8),
    "u1 carried over": Recipe(U1_FLOW, U1_UPDATE, 5),
    "u1 haar": Recipe(replace(U1_FLOW, radius=3.0, n_times=5, n_steps=12, base="haar"), U1_UPDATE, 16),
    "u1 4d": Recipe(
        GaugeContinuous(n_powers=2, radius=1.0, n_times=2, n_steps=3), replace(U1_UPDATE, n_samples=512, trust=40.0), 5
    ),
    "sun": Recipe(SUN_FLOW, SUN_UPDATE, 6),
    "sun carried over": Recipe(SUN_FLOW, CARRIED, 3),
    "sun haar": Recipe(replace(SUN_FLOW, n_powers=2, n_times=4, n_steps=8, base="haar"), SUN_UPDATE, 12),
    "sun 4d": Recipe(
        GaugeContinuous(n_powers=1, radius=1.0, pairs=False, n_times=1, n_steps=2),
        replace(SUN_UPDATE, n_samples=192, chunk=16, trust=40.0),
        4,
    ),
}
"""Of a stage that starts from another one, features and steps of the flow are those of the first; the update counts."""

HYPERCUBE = (4, 4, 4, 4)


def u1(size: int, beta: float, recipe: str = "u1") -> tuple[Configuration, ...]:
    """U(1) on a square: trained at 8², then carried over to what is larger."""
    stages = [RECIPES[recipe].on(U1Gauge((8, 8), beta))]
    return (*stages, *(RECIPES["u1 carried over"].on(U1Gauge((n, n), beta)) for n in (16,) if n <= size))


def sun(n: int, beta: float, recipe: str = "sun") -> tuple[Configuration, ...]:
    """SU(N) on 8²: trained at 4², then carried over."""
    return RECIPES[recipe].on(SUNGauge((4, 4), n, beta)), RECIPES["sun carried over"].on(SUNGauge((8, 8), n, beta))


def larger(n: int, beta: float) -> tuple[Configuration, ...]:
    """SU(N) on 16²: the pretrained model of 8² with its kernels as they are."""
    still = NaturalGradient(n_samples=128, chunk=32, trust=1e-10)
    return (Configuration(SUNGauge((16, 16), n, beta), SUN_FLOW, still, 1, start_from=f"su{n}-8-beta{beta:g}"),)


CASES = {
    "u1-8-beta2": Case(u1(8, 2.0), 0.95),
    "u1-16-beta3": Case(u1(16, 3.0), 0.90, 30_000),
    "u1-16-beta5": Case(u1(16, 5.0), 0.80, 30_000),
    "u1-16-beta7": Case(u1(16, 7.0), 0.70, 30_000),
    "u1-8-beta2-haar": Case(u1(8, 2.0, "u1 haar"), 0.95),
    "u1-16-beta3-haar": Case(u1(16, 3.0, "u1 haar"), 0.90, 10_000),
    "u1-16-beta5-haar": Case(u1(16, 5.0, "u1 haar"), 0.80, 10_000),
    "u1-16-beta7-haar": Case(u1(16, 7.0, "u1 haar"), 0.70, 10_000),
    "su2-8-beta2.2": Case(sun(2, 2.2), 0.95, 10_000),
    "su2-8-beta2.7": Case(sun(2, 2.7), 0.90, 10_000),
    "su2-16-beta2.2": Case(larger(2, 2.2), 0.95, 10_000),
    "su2-16-beta2.7": Case(larger(2, 2.7), 0.90, 10_000),
    "su3-8-beta4": Case(sun(3, 4.0), 0.99, 10_000),
    "su3-8-beta5": Case(sun(3, 5.0), 0.92, 10_000),
    "su3-8-beta6": Case(sun(3, 6.0), 0.80, 10_000),
    "su3-8-beta6-haar": Case(sun(3, 6.0, "sun haar"), 0.80, 10_000),
    "su3-16-beta4": Case(larger(3, 4.0), 0.99, 10_000),
    "su3-16-beta5": Case(larger(3, 5.0), 0.92, 10_000),
    "su3-16-beta6": Case(larger(3, 6.0), 0.80, 10_000),
    "su3-4d-4-beta1": Case((RECIPES["sun 4d"].on(SUNGauge(HYPERCUBE, 3, 1.0)),), None, 2_000),
    "u1-4d-4-beta0.5": Case((RECIPES["u1 4d"].on(U1Gauge(HYPERCUBE, 0.5)),), None, 10_000),
}
