"""Heat bath and overrelaxation for spins on circles, spheres and clocks.

One spin sees the others through the molecular field h = Σ_μ β_μ (s_{x+μ} + s_{x-μ}): its weight is exp(h·s). Sites of
one colour are no neighbours, so they all move at once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from flows.sampling.draws import categorical, von_mises_fisher
from flows.sampling.kernel import Info, State
from flows.sampling.metropolis import idle
from flows.sampling.spin_kernel import SpinKernel
from lattices.lattice import Lattice
from lattices.spins import from_vectors, unit_vectors
from lattices.theories.clock import ClockSpins

Move = Callable[[Tensor, Tensor], Tensor]
"""Spins and their molecular fields -> new spins, all of shape (sites, chains, n)."""


@dataclass(frozen=True)
class SpinSweeps(SpinKernel):
    """Sweeps over the colours of the lattice: two, three where an extent is odd."""

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        field, vectors = self.action.field, unit_vectors(self.action.field, state.x)
        s = vectors.flatten(1, -2).movedim(0, 1).clone(memory_format=torch.contiguous_format)  # (V, chains, n)
        for move in self._moves(generator):
            for part in parts(field.lattice.extents):
                sites = part.sites.to(s.device)
                s.index_copy_(0, sites, move(s[sites], self._molecular_field(s, part)))
        x = from_vectors(field, s.movedim(1, 0).reshape(vectors.shape))
        return State(x, self.action.energy(x)), idle(x)

    @abstractmethod
    def _moves(self, generator: torch.Generator) -> list[Move]:
        """What each sweep does."""

    def _molecular_field(self, s: Tensor, part: Part) -> Tensor:  # (V, chains, n) -> (sites, chains, n)
        neighbours, strengths = part.neighbours.to(s.device).unbind(1), (*self.couplings, *self.couplings)
        return torch.stack([beta * s[there] for beta, there in zip(strengths, neighbours)]).sum(0)


@dataclass(frozen=True)
class VectorHeatBath(SpinSweeps):
    """Every spin drawn anew given all others, after sweeps of overrelaxation that move far at constant action.

        P(s | rest) ∝ exp(h·s),    s → 2 (s·h) h / |h|² - s

    Draws are exact for any n, with Ulrich's rejection. Any extents. Nothing is refused and nothing tuned; a step costs
    1 + n_overrelaxation molecular fields at each site and one energy. Local: clusters beat it where correlations are
    long, and it beats HMC.

    Args:
        action: XY without crystal field, O(n), or any other with nothing but nearest-neighbour pairs.
        n_overrelaxation: sweeps of overrelaxation before the one of heat bath.

    References:
        M. Creutz, Phys. Rev. D 36 (1987) 515; F. R. Brown, T. J. Woch, Phys. Rev. Lett. 58 (1987) 2394.
    """

    n_overrelaxation: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.action.field.target, ClockSpins):
            raise ValueError(f"expected circles or spheres, got {self.action.field.target}: use ClockHeatBath")
        if type(self.n_overrelaxation) is not int or self.n_overrelaxation < 0:
            raise ValueError(f"expected a whole n_overrelaxation >= 0, got {self.n_overrelaxation}: try 2")

    def _moves(self, generator: torch.Generator) -> list[Move]:
        return [*[overrelaxed] * self.n_overrelaxation, lambda s, h: von_mises_fisher(h, generator)]

    @classmethod
    def examples(cls) -> Iterator[VectorHeatBath]:
        """XY and O(n), on odd extents too."""
        from lattices.theories.on import ON
        from lattices.theories.xy import XY

        yield cls(XY(extents=(4, 4), beta=1.1))
        yield cls(ON(extents=(2, 3), n=3, beta=1.2), n_overrelaxation=0)
        yield cls(ON(extents=(4,), n=2, beta=-0.7))
        yield cls(ON(extents=(2, 2, 3), n=4, beta=0.5), n_overrelaxation=1)


@dataclass(frozen=True)
class ClockHeatBath(SpinSweeps):
    """Every spin of a clock model drawn anew from its q states given all others.

        P(k | rest) ∝ exp(h·e_k),    e_k = (cos 2πk/q, sin 2πk/q)

    Any extents. A step costs one molecular field and q exponentials at each site, and one energy.

    Args:
        action: a clock model, with nothing but nearest-neighbour pairs.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.action.field.target, ClockSpins):
            raise ValueError(f"expected the spins of a clock, got {self.action.field.target}: use VectorHeatBath")

    def _moves(self, generator: torch.Generator) -> list[Move]:
        def draw(s: Tensor, h: Tensor) -> Tensor:
            states = self._states(s)
            return states[categorical(h @ states.mT, generator)]

        return [draw]

    def _states(self, like: Tensor) -> Tensor:  # -> (q, 2)
        field = self.action.field
        numbers = torch.arange(field.target.q, dtype=like.dtype, device=like.device)  # type: ignore[attr-defined]
        return unit_vectors(field, field.target.angle(numbers))  # type: ignore[attr-defined]

    @classmethod
    def examples(cls) -> Iterator[ClockHeatBath]:
        """Six states, and three antiferromagnetic ones."""
        from lattices.theories.clock import Clock

        yield cls(Clock(extents=(4, 4), q=6, beta=1.2))
        yield cls(Clock(extents=(5,), q=3, beta=-0.6))


def overrelaxed(s: Tensor, h: Tensor) -> Tensor:  # (..., n), (..., n) -> (..., n)
    """The mirror image 2 (s·ĥ) ĥ - s about the molecular field: the same energy, as far away as that allows."""
    axis = h / h.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)
    return 2 * (s * axis).sum(-1, keepdim=True) * axis - s


class Part(NamedTuple):
    """Sites of one colour, and their neighbours as flat indices: x + 1̂, …, x + d̂, x - 1̂, …, x - d̂."""

    sites: Tensor  # (n,)
    neighbours: Tensor  # (n, 2d)


@cache
def parts(extents: tuple[int, ...]) -> tuple[Part, ...]:
    """All sites, colour by colour: Σ_μ c(x_μ) modulo 2, or modulo 3 where an odd extent needs a third colour.

    Neighbours on a ring differ in c(x) = x mod 2, but for the last site of an odd ring, where c = 2.
    """
    lattice = Lattice(extents)
    x, sizes = lattice.coordinates(), torch.tensor(lattice.extents)
    odd = (sizes % 2 == 1) & (sizes > 1)
    colours = torch.where((x == sizes - 1) & odd, 2, x % 2).sum(1) % (3 if odd.any() else 2)
    sites = [(colours == colour).nonzero().squeeze(1) for colour in colours.unique()]
    return tuple(Part(each, lattice.neighbours()[each]) for each in sites)
