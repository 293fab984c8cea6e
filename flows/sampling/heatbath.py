"""Heat bath and overrelaxation for the links of gauge theories with Wilson's action.

One link U sees the others through the sum A of its staples: the weight is exp(β Re Tr(U A)/N). Links of one direction
whose sites have one colour share no plaquette, so they all move at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from flows.sampling.draws import su2_trace, von_mises
from flows.sampling.integrators import restored
from flows.sampling.kernel import Info, Kernel, State
from flows.sampling.metropolis import idle
from lattices.lattice import Lattice
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from symmetries.spectra import wrap

Turn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""How an SU(2) element moves: its staple as the element (a, b) of SU(2) and as a strength -> the factor (a', b')."""


@dataclass(frozen=True)
class HeatBath(Kernel):
    """Every link drawn anew given all others, after sweeps of overrelaxation that move far at constant action.

        P(U | rest) ∝ exp(β Re Tr(U A) / N),    U → V U with Re Tr(V U A) = Re Tr(U A)

    U(1): θ is drawn exactly, and reflected about the maximum of its weight. SU(2): likewise, with V = (Û A)⁻². SU(N):
    so in every SU(2) subgroup in turn. Any extents: two colours, three where an extent is odd. Nothing is refused and
    nothing tuned; a step costs (1 + n_overrelaxation) × d (d - 1) V staples, about as many forces as sweeps, and one
    energy. Local: topology moves no faster than with HMC.

    Args:
        action: U1Gauge or SUNGauge with rectangle = 0.
        n_overrelaxation: sweeps of overrelaxation before the one of heat bath; 2 or 3 decorrelate best per second.

    References:
        N. Cabibbo, E. Marinari, Phys. Lett. B 119 (1982) 387; S. L. Adler, Phys. Rev. D 23 (1981) 2901;
        M. Creutz, Phys. Rev. D 36 (1987) 515.
    """

    action: U1Gauge | SUNGauge
    n_overrelaxation: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.action, U1Gauge | SUNGauge):
            raise ValueError(f"expected U1Gauge or SUNGauge, got {self.action}: use HMC for other actions")
        if self.action.rectangle != 0:
            raise ValueError(f"expected Wilson's action, got rectangle = {self.action.rectangle}: use HMC for others")
        if not isinstance(self.n_overrelaxation, int) or self.n_overrelaxation < 0:
            raise ValueError(f"expected a whole n_overrelaxation >= 0, got {self.n_overrelaxation}: try 2")

    def init(self, x: Tensor) -> State:
        x = self.action.field.validate(x)
        return State(x, self.action.energy(x))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        field, move = self.action.field, self._move_matrices if state.x.is_complex() else self._move_angles
        links = state.x.flatten(1, 1 + field.lattice.dimension).movedim(0, -1)  # (d V, *target, chains)
        links = links.clone(memory_format=torch.contiguous_format)
        for source in (*[None] * self.n_overrelaxation, generator):
            for part in parts(field.lattice.extents):
                links.index_copy_(0, part.links.to(links.device), move(links, part, source).movedim(-2, 0))
        x = restored(field, links.movedim(-1, 0).contiguous().reshape(state.x.shape))
        return State(x, self.action.energy(x)), idle(x)

    def _move_angles(self, links: Tensor, part: Part, generator: torch.Generator | None) -> Tensor:
        """-ψ + δ with the weight exp(κ cos δ), or δ → -δ, where the sum of the staples is κ e^{iψ}/β."""
        one, two, three = taken(links, part.forward)
        four, five, six = taken(links, part.backward)
        angles = torch.cat([one - two - three, six - four - five])
        real, imaginary = angles.cos().sum(0), angles.sin().sum(0)
        psi = torch.atan2(imaginary, real)
        if generator is None:
            return wrap(-2 * psi - taken(links, part.links))
        return wrap(von_mises(self.action.beta * torch.hypot(real, imaginary), generator) - psi)

    def _move_matrices(self, links: Tensor, part: Part, generator: torch.Generator | None) -> Tensor:
        """All SU(2) subgroups in turn, on the rows of U and U A together."""
        u = taken(links, part.links)
        n, rows = len(u), torch.cat([multiply(u, staples(links, part)), u], 1)
        for i, j in combinations(range(n), 2):
            v, strength = su2_part(rows[i, i], rows[i, j], rows[j, i], rows[j, j])
            alpha = 2 * self.action.beta / n * strength
            a, b = reflection(v) if generator is None else product(su2_draw(alpha, generator), inverse(v))
            rows[i], rows[j] = a * rows[i] + b * rows[j], a.conj() * rows[j] - b.conj() * rows[i]
        return rows[:, n:]

    @classmethod
    def examples(cls) -> Iterator[HeatBath]:
        """U(1), SU(2) and SU(3) in two to four dimensions, on odd extents too."""
        yield cls(U1Gauge(extents=(4, 4), beta=2.0))
        yield cls(U1Gauge(extents=(2, 3, 2), beta=1.5), n_overrelaxation=0)
        yield cls(SUNGauge(extents=(4, 3), n=2, beta=2.2))
        yield cls(SUNGauge(extents=(2, 2, 2, 2), n=3, beta=5.0), n_overrelaxation=1)


# --------------------------------------------------------------------------------------- which links move together


class Part(NamedTuple):
    """Links that share no plaquette, as flat indices of (d, V), and the links of their staples, plane by plane."""

    links: Tensor  # (n,)
    forward: Tensor  # (3, d - 1, n): U_ν(x + μ̂), U_μ(x + ν̂), U_ν(x)
    backward: Tensor  # (3, d - 1, n): U_ν(x + μ̂ - ν̂), U_μ(x - ν̂), U_ν(x - ν̂)


@cache
def parts(extents: tuple[int, ...]) -> tuple[Part, ...]:
    """All links, direction by direction and colour by colour."""
    lattice = Lattice(extents)
    found = []
    for axis in range(lattice.dimension):
        colours = _colours(lattice, axis)
        found += [_part(lattice, axis, (colours == c).nonzero().squeeze(1)) for c in colours.unique()]
    return tuple(found)


def _colours(lattice: Lattice, axis: int) -> Tensor:  # -> (V,)
    """Σ_ν c(x_ν) over the axes across the links: modulo 2, or modulo 3 where an odd extent needs a third colour.

    Neighbours on a ring differ in c(x) = x mod 2, but for the last site of an odd ring, where c = 2.
    """
    x, extents = lattice.coordinates(), torch.tensor(lattice.extents)
    colours = torch.where((x == extents - 1) & (extents % 2 == 1), 2, x % 2)
    across = [nu for nu in range(lattice.dimension) if nu != axis]
    return colours[:, across].sum(1) % (3 if (extents[across] % 2).any() else 2)


def _part(lattice: Lattice, axis: int, sites: Tensor) -> Part:
    """The links along `axis` from some sites."""
    ahead, behind = lattice.neighbours().T.split(lattice.dimension)
    right, forward, backward = ahead[axis][sites], [], []
    for nu in range(lattice.dimension):
        if nu != axis:
            up, down, corner = ahead[nu][sites], behind[nu][sites], behind[nu][right]
            forward.append(_links(lattice, (nu, right), (axis, up), (nu, sites)))
            backward.append(_links(lattice, (nu, corner), (axis, down), (nu, down)))
    return Part(axis * lattice.volume + sites, torch.stack(forward, 1), torch.stack(backward, 1))


def _links(lattice: Lattice, *links: tuple[int, Tensor]) -> Tensor:
    return torch.stack([nu * lattice.volume + x for nu, x in links])


def taken(links: Tensor, index: Tensor) -> Tensor:  # (d V, *target, chains), (..., n) -> (..., *target, n, chains)
    """Links by flat index, the axes of the matrix in front of those that are many."""
    chosen = links.index_select(0, index.flatten().to(links.device)).unflatten(0, index.shape)
    return chosen.movedim(index.ndim - 1, -2).contiguous()


# ------------------------------------------------------------- matrices with the indices in front, (N, N, n, chains)


def staples(links: Tensor, part: Part) -> Tensor:  # (d V, N, N, chains) -> (N, N, n, chains)
    """A = Σ_ν U_ν(x+μ̂) U_μ(x+ν̂)† U_ν(x)† + U_ν(x+μ̂-ν̂)† U_μ(x-ν̂)† U_ν(x-ν̂)."""
    total = torch.zeros((), dtype=links.dtype, device=links.device)
    for nu in range(part.forward.shape[1]):
        one, two, three = taken(links, part.forward[:, nu])
        four, five, six = taken(links, part.backward[:, nu])
        total = total + multiply(one, adjoint(multiply(three, two))) + multiply(adjoint(multiply(five, four)), six)
    return total


def multiply(a: Tensor, b: Tensor) -> Tensor:  # (N, N, ...), (N, N, ...) -> (N, N, ...)
    """The matrix product; for N this small, element by element beats batched library calls threefold."""
    result = a[:, 0, None] * b[0]
    for j in range(1, len(b)):
        result.addcmul_(a[:, j, None], b[j])
    return result


def adjoint(a: Tensor) -> Tensor:
    return a.transpose(0, 1).conj_physical()


# ------------------------------------------------------------- SU(2) as pairs (a, b), the matrix [[a, b], [-b*, a*]]

Pair = tuple[Tensor, Tensor]


def su2_part(w00: Tensor, w01: Tensor, w10: Tensor, w11: Tensor) -> tuple[Pair, Tensor]:
    """v in SU(2) and k >= 0 with Re Tr(g w) = k Re Tr(g v) for all g in SU(2)."""
    a, b = (w00 + w11.conj()) / 2, (w01 - w10.conj()) / 2
    k = torch.hypot(a.abs(), b.abs())
    zero = k == 0
    safe = k.masked_fill(zero, 1)
    return (torch.where(zero, 1, a / safe), b / safe), k


def su2_draw(alpha: Tensor, generator: torch.Generator) -> Pair:
    """h in SU(2) with density ∝ exp(½ α Re Tr h): its trace drawn, its axis uniform."""
    h = su2_trace(alpha, generator)
    axis = torch.randn(3, *h.shape, generator=generator, dtype=h.dtype, device=h.device)
    x, y, z = axis * ((1 - h.square()).clamp(min=0) / axis.square().sum(0)).sqrt()
    return torch.complex(h, z), torch.complex(y, x)


def product(g: Pair, h: Pair) -> Pair:
    (a, b), (c, d) = g, h
    return a * c - b * d.conj(), a * d + b * c.conj()


def inverse(g: Pair) -> Pair:
    return g[0].conj(), -g[1]


def reflection(v: Pair) -> Pair:
    """v⁻²: turns v into v⁻¹, which has the same trace."""
    a, b = v
    return a.conj().square() - (b * b.conj()), -2 * a.real * b
