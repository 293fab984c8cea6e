"""The benchmark cases on circles, tori and spheres: targets, recipes, and the figures they have to reach.

To add a case: a recipe if none of those below fits, and a line in CASES; its largest KL divergence, if there is one,
in LARGEST_KL, and the energy of a cluster run, where none is exact, in ENERGIES.
"""

from __future__ import annotations

from typing import NamedTuple

from cases import Case

from flows.architectures.architecture import Architecture
from flows.architectures.harmonic import Harmonic
from flows.architectures.potential import PotentialFlow
from flows.architectures.sphere import SphereFlow
from flows.architectures.spin_continuous import SpinContinuous
from flows.architectures.torus import TorusFlow
from flows.configuration import Configuration
from flows.updates.gradient import GradientUpdate
from flows.updates.natural import NaturalGradient
from flows.updates.update import Update
from lattices.action import Action
from lattices.statistics import Estimate
from lattices.theories.on import ON
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.torus_correlated import TorusCorrelated
from lattices.theories.torus_mixture import UNIMODAL, TorusMixture
from lattices.theories.xy import XY


class Recipe(NamedTuple):
    """How a density is learnt: what the flow is made of, and how long and how carefully it is trained."""

    flow: Architecture
    update: Update
    n_steps: int
    dtype: str = "float64"

    def on(self, theory: Action) -> tuple[Configuration]:
        """The only stage of a case."""
        return (Configuration(theory, self.flow, self.update, self.n_steps, dtype=self.dtype),)


TORUS = NaturalGradient(n_samples=1024, trust=0.1, damping=1e-3, chunk=2048)
ADAM = GradientUpdate(learning_rate=0.02, batch_size=256)
ON_S2 = {
    "harmonic": Recipe(Harmonic(8, n_times=3), NaturalGradient(2000, chunk=1000, damping=3e-4), 40, "float32"),
    "recursive": Recipe(SphereFlow(), ADAM, 1500),
    "zonal": Recipe(SphereFlow("zonal", n_layers=8), NaturalGradient(1500, 500, 1e-2, 0.1), 100),
    "concave": Recipe(PotentialFlow("concave", 3, 24), NaturalGradient(2000, 500, 5e-3, 0.1), 120),
    "radial": Recipe(PotentialFlow("radial", 10, 4), NaturalGradient(800, 400, 2e-2, 0.1), 100),
    "polynomial": Recipe(PotentialFlow("polynomial", 10, 3), NaturalGradient(800, 400, 2e-2, 0.1), 100),
    "implicit": Recipe(PotentialFlow("implicit", 6, 10, (3,)), NaturalGradient(1600, 800, 1e-2, 0.1), 80),
}
"""Every family of flows on S², on the same target."""

ON_T2 = {
    "autoregressive": Recipe(TorusFlow(), TORUS, 40),
    "coupling": Recipe(TorusFlow(kind="coupling"), TORUS, 40),
    "spline": Recipe(TorusFlow(transform="spline"), TORUS, 40),
    "mobius": Recipe(TorusFlow(n_layers=4, transform="mobius"), TORUS, 40),
    "harmonic": Recipe(Harmonic(4, n_times=2), TORUS, 20),
}
"""Every family of flows on T²."""

HARMONIC_ON_S3 = Recipe(Harmonic(6, n_times=3), NaturalGradient(3000, chunk=1000, damping=3e-4), 40, "float32")
SPINS = Recipe(SpinContinuous(), NaturalGradient(3072, chunk=512, damping=1e-3), 10, "float32")
FEW_SPINS = Recipe(SpinContinuous(), NaturalGradient(2048, chunk=1024, damping=1e-3), 8)
S2, S3, T2 = SphereMixture(), SphereMixture.four_on_su2(), TorusMixture()

CASES = {
    "s2-four-modes": Case(ON_S2["harmonic"].on(S2), 0.997),
    "s2-four-modes-recursive": Case(ON_S2["recursive"].on(S2), 0.96),
    "s2-four-modes-zonal": Case(ON_S2["zonal"].on(S2), None),
    "s2-four-modes-concave": Case(ON_S2["concave"].on(S2), 0.993),
    "s2-four-modes-radial": Case(ON_S2["radial"].on(S2), 0.85),
    "s2-four-modes-polynomial": Case(ON_S2["polynomial"].on(S2), None),
    "s2-four-modes-implicit": Case(ON_S2["implicit"].on(S2), None),
    "s3-four-modes": Case(HARMONIC_ON_S3.on(S3), 0.99),
    "s3-four-modes-recursive": Case(ON_S2["recursive"].on(S3), None),
    "t2-unimodal": Case(Recipe(TorusFlow(1, n_harmonics=0, n_bins=3), TORUS, 40).on(TorusMixture(UNIMODAL)), 0.998),
    "t2-multimodal": Case(ON_T2["autoregressive"].on(T2), 0.998),
    "t2-correlated": Case(Recipe(TorusFlow(1, n_bins=2), TORUS, 40).on(TorusCorrelated()), 0.998),
    "t2-multimodal-coupling": Case(ON_T2["coupling"].on(T2), 0.998),
    "t2-multimodal-spline": Case(ON_T2["spline"].on(T2), 0.998),
    "t2-multimodal-mobius": Case(ON_T2["mobius"].on(T2), 0.998),
    "t2-multimodal-harmonic": Case(ON_T2["harmonic"].on(T2), 0.998),
    "xy-2": Case(FEW_SPINS.on(XY((2, 2), 1.0)), None),
    "xy-4": Case(FEW_SPINS.on(XY((4, 4), 1.0)), None),
    "o3-2": Case(FEW_SPINS.on(ON((2, 2), 3, 1.0)), None),
    "xy-8-beta0.9": Case(SPINS.on(XY((8, 8), 0.9)), 0.90),
    "xy-8-beta1.1": Case(SPINS.on(XY((8, 8), 1.1)), 0.80),
    "o3-8-beta1.2": Case(SPINS.on(ON((8, 8), 3, 1.2)), 0.85),
}

LARGEST_KL = {
    "s2-four-modes": 0.001,
    "s2-four-modes-recursive": 0.03,
    "s2-four-modes-concave": 0.003,
    "s2-four-modes-radial": 0.10,
    "s3-four-modes": 0.003,
    **{name: 0.001 for name in CASES if name.startswith("t2") and CASES[name].bar},
}
"""KL divergences to reach. Of S², Möbius splines, c-concave and radial maps: the best that others have published."""

MOST_PARAMETERS = {"s2-four-modes": 1360}
"""As many as the c-concave map of that figure has."""

ENERGIES = {
    "xy-8-beta0.9": Estimate(-1.226122, 0.000431, 256 * 1414),
    "xy-8-beta1.1": Estimate(-1.446700, 0.000264, 256 * 1252),
    "o3-8-beta1.2": Estimate(-0.982365, 0.000328, 256 * 1472),
}
"""-⟨Σ s·s'⟩ / V by clusters and heat bath for a minute: `python benchmarks/manifolds.py energies`."""
