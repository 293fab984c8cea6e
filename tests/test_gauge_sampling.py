"""Markov chains of gauge theories: Hamiltonian dynamics on groups, against laws and exact plaquettes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from torch import Tensor

from flows.sampling.integrators import INTEGRATORS, Integrator
from lattices.action import Action
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from tests.laws import kernels as law

GROUPS: dict[str, Action] = {
    "U(1)": U1Gauge((4, 4), 2.0),
    "SU(2)": SUNGauge((3, 2), 2, 2.2),
    "SU(3)": SUNGauge((2, 2), 3, 5.0),
    "SU(4)": SUNGauge((2, 2), 4, 6.0),
}
IMPROVED, PLAIN = SUNGauge((3, 3), 2, 2.0, rectangle=-1 / 12), SUNGauge((3, 3), 2, 2.0)
PARTS = {
    "SU(2) rectangles": (IMPROVED - PLAIN, PLAIN),
    "U(1) in two": (0.3 * U1Gauge((3, 3), 2.0), 0.7 * U1Gauge((3, 3), 2.0)),
    "U(1) in three": (0.2 * U1Gauge((3, 3), 2.0), 0.3 * U1Gauge((3, 3), 2.0), 0.5 * U1Gauge((3, 3), 2.0)),
}


@dataclass(frozen=True)
class WrongForce(Action):
    """An action whose force pulls the wrong way."""

    action: Action
    symmetries = ()

    @property
    def field(self):  # type: ignore[no-untyped-def]
        return self.action.field

    @property
    def broken(self):  # type: ignore[no-untyped-def]
        return self.action.broken

    def energy(self, x: Tensor) -> Tensor:
        return self.action.energy(x)

    def force(self, x: Tensor) -> Tensor:
        return -self.action.force(x)

    @classmethod
    def examples(cls):  # type: ignore[no-untyped-def]
        yield cls(GROUPS["U(1)"])


# ------------------------------------------------------------------------------------------- Hamiltonian dynamics


@pytest.mark.parametrize("method", INTEGRATORS)
@pytest.mark.parametrize("group", GROUPS)
def test_integrators_on_groups(group: str, method: str) -> None:
    law.reversible(GROUPS[group], INTEGRATORS[method])
    law.order(GROUPS[group], INTEGRATORS[method], 16 if method == "omf4" else 24)


@pytest.mark.parametrize(
    ("name", "method", "n_steps"),
    [
        ("SU(2) rectangles", "leapfrog", 16),
        ("SU(2) rectangles", "omf2", 8),
        ("U(1) in two", "omf4", 14),
        ("U(1) in three", "leapfrog", 16),
    ],
)
def test_nested_integrators(name: str, method: str, n_steps: int) -> None:
    law.reversible(PARTS[name], INTEGRATORS[method])
    law.order(PARTS[name], INTEGRATORS[method], n_steps)


def test_negative_controls_of_integrators_on_groups() -> None:
    for action in (GROUPS["U(1)"], PARTS["U(1) in two"]):
        with pytest.raises(AssertionError, match="misses its start"):
            law.reversible(action, Integrator((0.6, 0.4), (1.0,), 2))
        with pytest.raises(AssertionError, match="order"):
            law.order(action, replace(INTEGRATORS["leapfrog"], order=4), 8)
    with pytest.raises(AssertionError, match="order"):
        law.order(WrongForce(GROUPS["SU(2)"]), INTEGRATORS["leapfrog"], 8)
