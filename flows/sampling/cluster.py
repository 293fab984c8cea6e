"""Cluster updates of signs: Ising spins, and the signs of φ⁴ fields, by one rule.

An action S = -Σ_μ J_μ Σ_x φ_x φ_{x+μ} + Σ_x V(|φ_x|) is an Ising model for the signs at fixed |φ|, with couplings
J_μ |φ_x φ_{x+μ}|. A bond is active with probability 1 - exp(-2 max(0, J_μ φ_x φ_{x+μ})); the connected clusters may
then be flipped freely, for either sign of J. The J_μ (2 for φ⁴, K for Ising) are read off the force of the action.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import idle
from lattices.action import Action
from lattices.fields import Real
from lattices.invariance import SiteSign
from lattices.theories.ising import Spins
from lattices.theories.neighbours import Displacement, axial, forward_sum


@dataclass(frozen=True)
class ClusterKernel(Kernel):
    """What cluster updates have in common: a target with pair couplings, and a start that is checked against them."""

    action: Action

    def __post_init__(self) -> None:
        _check_target(self.action)

    @cached_property
    def couplings(self) -> tuple[float, ...]:
        """J_μ for each axis."""
        return pair_couplings(self.action)

    def init(self, x: Tensor) -> State:
        return _checked_start(self.action, self.couplings, x)


@dataclass(frozen=True)
class SwendsenWang(ClusterKernel):
    """Give every cluster of active bonds a new random sign.

    Moves the signs alone: exact and ergodic for spins; for φ⁴ compose it with HMC or local updates (`Composite`).
    Little critical slowing down. Cost V for all chains at once, on the CPU.

    Args:
        action: spins ±1 or a scalar field, with nearest-neighbour pair couplings and an even site potential.

    References:
        R. H. Swendsen, J.-S. Wang, Phys. Rev. Lett. 58 (1987) 86; R. C. Brower, P. Tamayo, ibid. 62 (1989) 1087.
    """

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        labels, n_clusters = clusters(state.x, self.couplings, generator)
        signs = 2 * torch.randint(2, (n_clusters,), generator=generator, device=state.x.device) - 1
        x = state.x * signs[labels]
        return State(x, self.action.energy(x)), idle(x)

    @classmethod
    def examples(cls) -> Iterator[SwendsenWang]:
        """Ising, its antiferromagnet, and the signs of φ⁴."""
        from lattices.theories.ising import Ising
        from lattices.theories.phi4 import Phi4

        yield cls(Ising(extents=(2, 4), coupling=0.3))
        yield cls(Ising(extents=(2, 3), coupling=-0.2))
        yield cls(Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0))


@dataclass(frozen=True)
class Wolff(ClusterKernel):
    """Flip the cluster of one random site in every chain: big clusters are chosen more often.

    As `SwendsenWang`, with less slowing down per flipped spin in three and more dimensions; all clusters are built to
    keep the chains together, so a step costs V here and not the size of the cluster.

    Args:
        action: spins ±1 or a scalar field, with nearest-neighbour pair couplings and an even site potential.

    References:
        U. Wolff, Phys. Rev. Lett. 62 (1989) 361.
    """

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        labels, _ = clusters(state.x, self.couplings, generator)
        flat = labels.flatten(1)
        seed = torch.randint(flat.shape[1], (len(flat), 1), generator=generator, device=flat.device)
        flipped = (flat == flat.gather(1, seed)).reshape(state.x.shape)
        x = torch.where(flipped, -state.x, state.x)
        return State(x, self.action.energy(x)), idle(x)

    @classmethod
    def examples(cls) -> Iterator[Wolff]:
        """Ising, and the signs of φ⁴."""
        from lattices.theories.ising import Ising
        from lattices.theories.phi4 import Phi4

        yield cls(Ising(extents=(2, 4), coupling=0.3))
        yield cls(Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0))


def pair_couplings(action: Action) -> tuple[float, ...]:
    """J_μ = -∂²S / ∂φ_0 ∂φ_μ, one per axis, from the force of a unit field at the origin; 0 on axes of one site."""
    lattice = action.field.lattice
    unit = torch.zeros(1, lattice.volume, dtype=torch.float64)
    unit[0, 0] = 1
    x = unit.reshape(1, *lattice.extents)
    response = (action.force(x) - action.force(torch.zeros_like(x))).flatten().tolist()
    there = lattice.neighbours()[0, : lattice.dimension].tolist()
    links = [2 if extent == 2 else 1 for extent in lattice.extents]  # between the two sites
    return tuple(response[site] / n if site else 0.0 for site, n in zip(there, links))


def clusters(x: Tensor, couplings: tuple[float, ...], generator: torch.Generator) -> tuple[Tensor, int]:
    """Labels of the clusters of active bonds, different in every chain, and their number.

    Shape: (chains, *extents) -> (chains, *extents).
    """
    bonds = axial(x.ndim - 1)
    gains = [2 * coupling * x * forward_sum(x, [bond]) for coupling, bond in zip(couplings, bonds)]
    return joined(gains, bonds, generator)


def joined(gains: Sequence[Tensor], bonds: list[Displacement], generator: torch.Generator) -> tuple[Tensor, int]:
    """Labels of the clusters of any bonds, each active with probability 1 - exp(-max(0, gain)), and their number.

    Uniform numbers come in the dtype of the gains: single precision is fast, and rounds probabilities at 2^-24. The
    graph of all chains is built row by row, so that finding its connected components is what a call costs.

    Args:
        gains: one tensor for each kind of bond: how much S would grow if the bond from each site broke.
        bonds: where the bond of that kind leads, as in `neighbours`.

    Shape: (chains, *extents) each -> (chains, *extents).
    """
    closed = torch.stack(list(gains), -1).clamp_(min=0).neg_().exp_()
    uniform = torch.rand(closed.shape, generator=generator, dtype=closed.dtype, device=closed.device)
    active = (uniform > closed).reshape(-1, len(bonds)).cpu().numpy()
    n_clusters, labels = connected_components(_graph(active, _ends(gains[0].shape, tuple(bonds))), directed=False)
    return torch.from_numpy(labels).to(closed.device, torch.int64).reshape(gains[0].shape), int(n_clusters)


def _graph(active: np.ndarray, ends: np.ndarray) -> csr_array:  # (sites, bonds) twice
    """The bonds that are active; row i starts at Σ_{j<i} of their numbers."""
    starts = np.zeros(len(active) + 1, dtype=ends.dtype)
    starts[1:] = active.cumsum(dtype=ends.dtype)[active.shape[1] - 1 :: active.shape[1]]
    indices = ends[active]
    return csr_array((np.ones(len(indices)), indices, starts), shape=(len(active), len(active)))


@lru_cache(maxsize=4)
def _ends(shape: tuple[int, ...], bonds: tuple[Displacement, ...]) -> np.ndarray:  # -> (sites, bonds)
    """The number of the site that each bond of each site leads to, the sites of all chains counted through."""
    numbers = torch.arange(math.prod(shape)).reshape(shape)
    ends = torch.stack([forward_sum(numbers, [bond]) for bond in bonds], -1).reshape(-1, len(bonds)).numpy()
    return ends.astype(np.int32 if ends.size < 2**31 else np.int64)


def _check_target(action: Action) -> None:
    if action.field.target not in (Real(), Spins()):
        raise ValueError(f"expected a scalar field or spins ±1, got {action.field.target}: clusters flip signs")


def _checked_start(action: Action, couplings: tuple[float, ...], x: Tensor) -> State:
    """The state at x, if flipping the sign at the origin changes S by the pair couplings alone."""
    flipped = SiteSign().apply(action.field.validate(x), action.field)
    energy = action.energy(x)
    change = action.energy(flipped) + _pairs(flipped, couplings) - energy - _pairs(x, couplings)
    if (change.abs() > torch.finfo(x.dtype).eps ** 0.5 * (1 + energy.abs())).any():
        raise ValueError(
            f"expected S = -J Σ φ_x φ_(x+μ) + Σ V(|φ_x|), got {action} with other terms, a source or far neighbours: "
            "use HMC"
        )
    return State(x, energy)


def _pairs(x: Tensor, couplings: tuple[float, ...]) -> Tensor:  # (chains, *extents) -> (chains,)
    """Σ_μ J_μ Σ_x φ_x φ_{x+μ}."""
    products = [coupling * x * x.roll(-1, axis) for axis, coupling in enumerate(couplings, 1)]
    return sum(products, torch.zeros_like(x)).flatten(1).sum(1)
