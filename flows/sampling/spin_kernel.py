"""What the updates of circles, spheres and clocks have in common: an action that is nothing but pair couplings.

S = -Σ_μ β_μ Σ_x s_x·s_{x+μ} of unit vectors s. The β_μ are read off the energy, and the action is held against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from flows.sampling.kernel import Kernel, State
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.spins import from_vectors, unit_vectors
from lattices.theories.clock import ClockSpins
from lattices.theories.neighbours import axial, forward_sum

_TOLERANCE = 1e-9  # of double precision sums


@dataclass(frozen=True)
class SpinKernel(Kernel):
    """A kernel for unit vectors with nearest neighbours: its action is checked when it is made.

    Args:
        action: S = -Σ_μ β_μ Σ_x s_x·s_{x+μ} on circles, spheres or clocks, up to a constant.
    """

    action: Action

    def __post_init__(self) -> None:
        n_components(self.action.field)
        _check_pairs(self.action, self.couplings)

    @cached_property
    def couplings(self) -> tuple[float, ...]:
        """β_μ for each axis."""
        return spin_couplings(self.action)

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        return State(x, self.action.energy(x))


def is_spins(field: FieldSpace) -> bool:
    """Whether these are angles, clocks or unit vectors on sites."""
    return field.cells == "sites" and isinstance(field.target, Circle | Sphere | ClockSpins)


def n_components(field: FieldSpace) -> int:
    """How many components the spins have; ValueError unless they are angles, clocks or unit vectors on sites."""
    if not is_spins(field):
        raise ValueError(f"expected circles, spheres or clocks on sites, got {field}: use another kernel, such as HMC")
    return field.target.n + 1 if isinstance(field.target, Sphere) else 2


def spin_couplings(action: Action) -> tuple[float, ...]:
    """β_μ for each axis, from energies in float64: turn the origin, its neighbour, both or none; 0 on axes of one site.

    S(origin) + S(neighbour) - S(both) - S(none) = 2 β_μ n (1 - cos), with the cosine of the turn and n bonds between.
    """
    lattice, d = action.field.lattice, action.field.lattice.dimension
    there = lattice.neighbours()[0, :d]
    origin, near = one_hot(torch.zeros(1, dtype=torch.int64), lattice.volume), one_hot(there, lattice.volume)
    turned = torch.cat([0 * origin, origin, near, near | origin]).bool().reshape(-1, *lattice.extents, 1)
    first = one_hot(torch.tensor(0), n_components(action.field)).double()
    x = from_vectors(action.field, torch.where(turned, -first, first))
    none, one, *others = action.energy(x).tolist()
    s = unit_vectors(action.field, x).flatten(1, -2)
    gap = 1 - float(s[0, 0] @ s[1, 0])
    bonds = [2 if extent == 2 else 1 for extent in lattice.extents]
    changes = [one + single - both - none for single, both in zip(others[:d], others[d:])]
    return tuple(change / (2 * n * gap) if site else 0.0 for change, n, site in zip(changes, bonds, there.tolist()))


def _check_pairs(action: Action, couplings: tuple[float, ...]) -> None:
    """Raise unless S differs between two fields, one with all spins alike and one without any pattern, as pairs do."""
    field, n = action.field, n_components(action.field)
    alike = one_hot(torch.tensor(0), n).double().expand(*field.lattice.extents, n)
    wild = torch.arange(1, alike.numel() + 1, dtype=torch.float64).square().sin().reshape(alike.shape)
    x = from_vectors(field, torch.stack([alike, wild]))
    energy = action.energy(x)
    first, second = (energy + _pairs(unit_vectors(field, x), couplings)).tolist()
    if not abs(first - second) < _TOLERANCE * (1 + float(energy.abs().max())):
        raise ValueError(f"expected S = -Σ β s_x·s_(x+μ) of nearest neighbours, got {action} with other terms: use HMC")


def _pairs(s: Tensor, couplings: tuple[float, ...]) -> Tensor:  # (batch, *extents, n) -> (batch,)
    """Σ_μ β_μ Σ_x s_x·s_{x+μ}."""
    components, bonds = s.movedim(-1, 1), axial(len(couplings))
    products = [beta * components * forward_sum(components, [bond]) for beta, bond in zip(couplings, bonds)]
    return torch.stack(products).sum(0).flatten(1).sum(1)
