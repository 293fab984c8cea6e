"""Systems: the families that the command line and the benchmarks run, with their ranges and what is known of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lattices.action import Family
from lattices.theories.families import Section, phi4_form_a, phi4_form_d
from lattices.theories.ising_dual import IsingDualFamily
from lattices.theories.potts_dual import PottsDualFamily
from mlrg.couplings import CouplingSpace
from mlrg.teacher import Recipe

_PLAIN = Recipe()


@dataclass(frozen=True)
class System:
    """A family of actions, the couplings that teachers learn, and where lessons are taken.

    Args:
        name: on the command line.
        family: on any lattice; `family.on(extents)` moves it.
        space: range of the couplings that the flows are trained on: where images J' may lie.
        lessons: the narrower range of J that lessons are proposed in; images are about twice as far from J*.
        ends: two couplings on different sides of the transition: the segment that the critical coupling is read on.
        recipe: of the flows.
        correction: exponent ω of the leading corrections L^{-ω} to universal numbers, None for no extrapolation: 7/4
            for Ising (the regular part of χ), 4/3 for φ⁴ (M. Barma, M. E. Fisher, Phys. Rev. Lett. 53 (1984) 1935).
        references: exact or best known "critical_coupling" (first coupling), "y_t", "delta_sigma".
    """

    name: str
    family: Family
    space: CouplingSpace
    lessons: CouplingSpace
    ends: tuple[tuple[float, ...], tuple[float, ...]]
    recipe: Recipe = _PLAIN
    correction: float | None = None
    references: dict[str, float] = field(default_factory=dict)

    @property
    def segment(self) -> tuple[Tensor, Tensor]:
        """The ends as tensors."""
        low, high = (torch.tensor(end, dtype=torch.float64) for end in self.ends)
        return low, high


_ISING_CLASS = {"y_t": 1.0, "nu": 1.0, "delta_sigma": 0.125, "y_h": 1.875}
_SOFT = Recipe(frequencies=(0.8, 1.6, 2.4), modulations=(1.2,))
_POTTS = Recipe(frequencies=(1.2, 2.4), modulations=(1.2,), smoothing=(), tails=(0.8,), n_times=2)


def systems() -> dict[str, System]:
    """All systems by name."""
    known = [_ising(), _ising_diagonal(), _phi4(), _phi4_form_a(), _phi4_plane(), _potts3()]
    return {system.name: system for system in known}


def system(name: str) -> System:
    """One of `systems()`."""
    known = systems()
    if name not in known:
        raise ValueError(f"expected a system, one of {', '.join(known)}, got {name!r}: choose one of these")
    return known[name]


def _ising() -> System:
    exact = {"critical_coupling": math.log(1 + math.sqrt(2)) / 2, **_ISING_CLASS}
    return System(
        "ising", IsingDualFamily.covering((8, 8), {"nearest": 0.5}), CouplingSpace(("nearest",), (0.38,), (0.50,)),
        CouplingSpace(("nearest",), (0.428,), (0.453,)), ((0.40,), (0.48,)), correction=1.75, references=exact,
    )  # fmt: skip


def _ising_diagonal() -> System:
    exact = {"critical_coupling": math.log(1 + math.sqrt(2)) / 2, **_ISING_CLASS}
    names = ("nearest", "diagonal")
    return System(
        "ising-diagonal", IsingDualFamily.covering((8, 8), {"nearest": 0.5, "diagonal": 0.12}),
        CouplingSpace(names, (0.24, -0.03), (0.50, 0.12)), CouplingSpace(names, (0.30, 0.0), (0.46, 0.09)),
        ((0.40, 0.0), (0.48, 0.0)), correction=1.75, references=exact,
    )  # fmt: skip


def _phi4() -> System:
    fixed = Section(phi4_form_d((8, 8)), ("beta",), (0.0, 1.0), ((1.0,), (0.0,)))
    return System(
        "phi4", fixed, CouplingSpace(("beta",), (0.60,), (0.76,)), CouplingSpace(("beta",), (0.667,), (0.695,)),
        ((0.62,), (0.74,)), _SOFT, 4 / 3, {"critical_coupling": 0.680605, **_ISING_CLASS},
    )  # fmt: skip


def _phi4_form_a() -> System:
    fixed = Section(phi4_form_a((8, 8)), ("quartic",), (-4.0, 0.0), ((0.0,), (1.0,)))
    return System(
        "phi4-form-a", fixed, CouplingSpace(("quartic",), (3.4,), (5.2,)),
        CouplingSpace(("quartic",), (4.05,), (4.5,)), ((3.5,), (5.1,)), _SOFT, 4 / 3, dict(_ISING_CLASS),
    )  # fmt: skip


def _phi4_plane() -> System:
    names = ("beta", "quartic")
    return System(
        "phi4-plane", phi4_form_d((8, 8)), CouplingSpace(names, (0.60, 0.4), (0.76, 1.2)),
        CouplingSpace(names, (0.65, 0.6), (0.71, 1.1)), ((0.62, 1.0), (0.74, 1.0)), _SOFT, 4 / 3,
        {"critical_coupling": 0.680605, **_ISING_CLASS},
    )  # fmt: skip


def _potts3() -> System:
    exact = {
        "critical_coupling": math.log(1 + math.sqrt(3)),
        "y_t": 1.2,
        "nu": 5 / 6,
        "delta_sigma": 2 / 15,
        "y_h": 28 / 15,
    }
    return System(
        "potts3", PottsDualFamily.covering((8, 8), {"nearest": 1.1}, 3), CouplingSpace(("nearest",), (0.90,), (1.10,)),
        CouplingSpace(("nearest",), (0.99,), (1.018,)), ((0.95,), (1.06,)), _POTTS, None, exact,
    )  # fmt: skip
