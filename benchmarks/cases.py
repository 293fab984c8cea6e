"""The scalar benchmark cases: targets, recipes, references and the figures they have to reach."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from flows.architectures.continuous import Continuous
from flows.configuration import Configuration
from flows.updates.natural import NaturalGradient
from lattices.action import Action
from lattices.exact import ising_critical_coupling
from lattices.theories.ising_dual import IsingDual
from lattices.theories.phi4 import Phi4


@dataclass(frozen=True)
class Case:
    """A target, the stages of training that lead to it (each starts from the one before), and what is known.

    Args:
        stages: configurations; the last one's theory is the target.
        bar: the ESS to reach, None where there is nothing to compare with.
        n: samples of the evaluation.
        reference: log Z of another method, where no exact value is known.
    """

    stages: tuple[Configuration, ...]
    bar: float | None
    n: int = 100_000
    reference: float | None = None

    @property
    def action(self) -> Action:
        return self.stages[-1].theory


FLOW = Continuous()
DUAL = replace(
    FLOW, frequencies=(1.2, 2.4, 3.6, 4.8, 6.0), tails=(0.15, 0.3, 0.6, 1.2), smoothing=(0.3, 0.8), n_steps=10
)
UPDATE = NaturalGradient()
K_C = ising_critical_coupling()


def phi4(extents: tuple[int, ...], quartic: float, n_steps: int = 20, mass_squared: float = -4.0) -> Configuration:
    return Configuration(Phi4(extents, mass_squared, quartic), FLOW, UPDATE, n_steps)


def dual(size: int, n_steps: int, n_samples: int) -> Configuration:
    update = replace(UPDATE, n_samples=n_samples)
    return Configuration(IsingDual((size, size), K_C), DUAL, update, n_steps)


COLLECTIVE = replace(FLOW, smoothing=(0.4,))
SMALL = replace(phi4((16, 16), 4.572, 12), architecture=COLLECTIVE, update=replace(UPDATE, decay=0.1))
LARGE = Configuration(
    Phi4((32, 32), -4.0, 4.572), replace(COLLECTIVE, n_steps=12), NaturalGradient(n_samples=3072, chunk=128), n_steps=12
)

CASES = {
    "phi4-4-exact": Case((phi4((4, 4), 8.0, 15),), 0.98, 400_000),
    "phi4-8": Case((phi4((8, 8), 8.0),), 0.98, reference=9.2895),  # thermodynamic integration, error 0.0027
    "phi4-12": Case((phi4((12, 12), 5.276),), 0.97),
    "phi4-16c": Case((Configuration(Phi4.from_form_c((16, 16), -0.4, 2.4), FLOW, UPDATE, 15),), 0.95),
    "phi4-32": Case((SMALL, LARGE), 0.85, 10_000),
    "phi4-3d-6": Case((phi4((6, 6, 6), 10.0, 15),), 0.90),  # ξ = 1.56 (second moment)
    "ising-8": Case((dual(8, 15, 2048),), 0.95),
    "ising-16": Case((dual(8, 15, 2048), dual(16, 15, 3072)), 0.90, 20_000),
}
