"""Embedded clusters: the mirror images of spins on circles, spheres and clocks are Ising spins.

Fix a mirror with unit normal r. Which side a spin is on is a sign, and S = -β Σ s_x·s_y an Ising model for the signs,
with couplings β |s_x·r| |s_y·r|. A bond is active with probability 1 - exp(-2 max(0, β (s_x·r)(s_y·r))); each of the
connected clusters may be reflected freely, for either sign of β.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from flows.sampling.cluster import joined
from flows.sampling.integrators import restored
from flows.sampling.kernel import Info, State
from flows.sampling.metropolis import idle
from flows.sampling.spin_kernel import SpinKernel, n_components
from lattices.fields import FieldSpace
from lattices.theories.neighbours import axial, forward_sum


class Clusters(NamedTuple):
    """A random mirror for each chain, and the clusters of spins that it reflects together."""

    mirror: Tensor  # (chains, 1, …, *target): r of unit vectors; of angles a, where θ → a - θ
    heights: Tensor  # (chains, *extents): s·r
    labels: Tensor  # (chains, *extents), different in every chain
    n: int


@dataclass(frozen=True)
class EmbeddedClusters(SpinKernel):
    """What both cluster updates have in common: the clusters, and what is known of a field once they are there."""

    @torch.no_grad()
    def structure_factor(
        self, x: Tensor, generator: torch.Generator, momentum: tuple[int, ...] | None = None
    ) -> Tensor:  # (chains, *event) -> (chains,)
        """|Σ_x e^{ikx} s_x|² / V along one random direction, averaged over what its clusters do: the same mean.

            χ(k) = (n/V) ⟨ Σ_C |Σ_{x∈C} e^{ikx} s_x·r|² ⟩,    k_μ = 2π m_μ / L_μ

        An improved estimator: where correlations are short, clusters are small and the sum of their squares hardly
        fluctuates; where all spins are alike, the random direction makes it worse than the plain one. k = 0 is the
        susceptibility. To be measured in `run`; costs what a step costs.

        Args:
            momentum: the whole numbers m, one for each axis; None for zero.

        References:
            U. Wolff, Nucl. Phys. B 334 (1990) 581.
        """
        field, found = self.action.field, self._clusters(x, generator)
        wave = _wave(field, momentum, x)
        terms = torch.stack([found.heights * wave.cos(), found.heights * wave.sin()], -1)
        sums = terms.new_zeros(found.n, 2).index_add_(0, found.labels.flatten(), terms.flatten(0, -2))
        total = (terms * sums[found.labels]).flatten(1).sum(1)
        return n_components(field) / field.lattice.volume * total

    def _clusters(self, x: Tensor, generator: torch.Generator) -> Clusters:
        target, bonds = self.action.field.target, axial(len(self.couplings))
        mirror = target.random((len(x), *[1] * len(bonds)), generator, x.dtype)
        heights = (x * mirror).sum(-1) if target.shape else (x - mirror / 2).sin()
        gains = [2 * beta * heights * forward_sum(heights, [bond]) for beta, bond in zip(self.couplings, bonds)]
        return Clusters(mirror, heights, *joined(gains, bonds, generator))

    def _reflected(self, x: Tensor, found: Clusters, chosen: Tensor) -> State:  # bool (chains, *extents)
        """The state with the chosen spins behind their mirrors."""
        field = self.action.field
        if field.target.shape:
            x = restored(field, x - 2 * (chosen * found.heights)[..., None] * found.mirror)
        else:
            x = torch.where(chosen, field.exp(-x, found.mirror.expand_as(x)), x)
        return State(x, self.action.energy(x))


@dataclass(frozen=True)
class EmbeddedSwendsenWang(EmbeddedClusters):
    """Reflect every cluster of spins, or leave it, by the toss of a coin: one random mirror for each chain and step.

    Exact and ergodic by itself; a step decorrelates one direction of spin space. Little critical slowing down, where
    HMC needs trajectories as long as the correlations. Nothing to tune. Cost V for all chains at once, on the CPU.

    Args:
        action: XY without crystal field, O(n), a clock model, or any other with nothing but nearest-neighbour pairs.

    References:
        U. Wolff, Phys. Rev. Lett. 62 (1989) 361; R. H. Swendsen, J.-S. Wang, Phys. Rev. Lett. 58 (1987) 86.
    """

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        found = self._clusters(state.x, generator)
        coins = torch.randint(2, (found.n,), generator=generator, device=state.x.device).bool()
        return self._reflected(state.x, found, coins[found.labels]), idle(state.x)

    @classmethod
    def examples(cls) -> Iterator[EmbeddedSwendsenWang]:
        """XY, O(3), an O(4) antiferromagnet and two clocks."""
        from lattices.theories.clock import Clock
        from lattices.theories.on import ON
        from lattices.theories.xy import XY

        yield cls(XY(extents=(4, 4), beta=1.1))
        yield cls(ON(extents=(2, 3), n=3, beta=1.2))
        yield cls(ON(extents=(4,), n=4, beta=-0.5))
        yield from (cls(Clock(extents=(2, 4), q=q, beta=0.8)) for q in (5, 6))


@dataclass(frozen=True)
class EmbeddedWolff(EmbeddedClusters):
    """Reflect the cluster of one random site in every chain: big clusters are chosen more often.

    As `EmbeddedSwendsenWang`, with less slowing down per reflected spin in three and more dimensions; all clusters are
    built to keep the chains together, so a step costs V here and not the size of the cluster.

    Args:
        action: XY without crystal field, O(n), a clock model, or any other with nothing but nearest-neighbour pairs.

    References:
        U. Wolff, Phys. Rev. Lett. 62 (1989) 361.
    """

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        found = self._clusters(state.x, generator)
        flat = found.labels.flatten(1)
        seed = torch.randint(flat.shape[1], (len(flat), 1), generator=generator, device=flat.device)
        chosen = (flat == flat.gather(1, seed)).reshape(found.labels.shape)
        return self._reflected(state.x, found, chosen), idle(state.x)

    @classmethod
    def examples(cls) -> Iterator[EmbeddedWolff]:
        """XY, O(3) and a clock."""
        from lattices.theories.clock import Clock
        from lattices.theories.on import ON
        from lattices.theories.xy import XY

        yield cls(XY(extents=(4, 4), beta=1.1))
        yield cls(ON(extents=(2, 2, 3), n=3, beta=0.4))
        yield cls(Clock(extents=(5,), q=3, beta=-0.6))


def _wave(field: FieldSpace, momentum: tuple[int, ...] | None, x: Tensor) -> Tensor:  # -> (*extents)
    """k·x at every site, in the dtype of x."""
    lattice = field.lattice
    numbers = (0,) * lattice.dimension if momentum is None else tuple(momentum)
    if len(numbers) != lattice.dimension or not all(isinstance(m, int) for m in numbers):
        raise ValueError(f"expected one whole number for each of {lattice.dimension} axes, got {momentum}: try (1, 0)")
    k = x.new_tensor([2 * math.pi * m / extent for m, extent in zip(numbers, lattice.extents)])
    return (lattice.coordinates(x.device).to(x.dtype) @ k).reshape(lattice.extents)
