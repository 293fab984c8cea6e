"""Which links move and which loops are frozen: masks of a direction and a residue of the sites, in d >= 2.

| masks          | active links (x, μ)                         | masks per cycle        | frozen in the plane (μ, ν)  |
|----------------|---------------------------------------------|------------------------|-----------------------------|
| `link_stripes` | x_ν + ⌊p/2⌋ Σ_{ρ≠μ,ν} x_ρ ≡ residue (mod p) | p d (p = 4: 8, 12, 16) | (p - 2) / p of plaquettes   |
| `link_parity`  | x_1 + … + x_d ≡ parity (mod 2)              | 2 d                    | 1 × 2 around active links   |

Opposite links of an active plaquette must not move together. One direction at a time, a cycle has therefore at least
2d masks (4, 6, 8), which `link_stripes` reaches with p = 2 and `link_parity` with frozen staples. Period 3 is the
least that leaves plaquettes of the plane (μ, ν) frozen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import final

import torch
from torch import Tensor, nn

from lattices.invariance import Translations
from lattices.lattice import Lattice
from lattices.loops import PLAQUETTE, RECTANGLE, Path, orientations, staple_paths


def links_along(lattice: Lattice, path: Path) -> Tensor:  # -> (len(path), V)
    """Flat indices axis V + x of the links that a path runs along, for every site it may start from."""
    extents, here = torch.tensor(lattice.extents), lattice.coordinates()
    strides = torch.tensor([math.prod(lattice.extents[mu + 1 :]) for mu in range(lattice.dimension)])
    rows = []
    for step in path:
        ahead = torch.zeros_like(extents).index_fill(0, torch.tensor(abs(step) - 1), 1 if step > 0 else -1)
        start = here if step > 0 else here + ahead
        rows.append((abs(step) - 1) * lattice.volume + start % extents @ strides)
        here = here + ahead
    return torch.stack(rows)


@final
class Transport(nn.Module):
    """The product of links along one path, from some sites only; for real angles their signed sum.

    Args:
        lattice: of the links.
        path: as in `lattices.loops`.
        sites: flat indices of the starting points, shape (n,).
        skip: leave out so many first steps: 1 makes a loop through a link the staple that closes it.

    Shape: (batch, d, *extents, *element) -> (batch, n, *element).
    """

    links: Tensor  # (len(path), n)

    def __init__(self, lattice: Lattice, path: Path, sites: Tensor, skip: int = 0) -> None:
        super().__init__()
        self.lattice, self.path = lattice, path[skip:]
        self.register_buffer("links", links_along(lattice, path)[skip:, sites], persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        if not u.is_complex():
            return torch.stack([link if step > 0 else -link for link, step in zip(self._links(u), self.path)]).sum(0)
        return reduce(torch.matmul, self._factors(u))

    def trace(self, u: Tensor) -> Tensor:  # (batch, d, *extents, N, N) -> (batch, n), complex
        """Tr of the product over N, without its last multiplication; of angles, e^{iθ}."""
        if not u.is_complex():
            angle = self.forward(u)
            return torch.polar(torch.ones_like(angle), angle)
        *first, last = self._factors(u)
        return (reduce(torch.matmul, first) * last.mT).sum((-2, -1)) / u.shape[-1]

    def _links(self, u: Tensor) -> list[Tensor]:
        flat = u.flatten(1, 1 + self.lattice.dimension)
        return [flat.index_select(1, row) for row in self.links]

    def _factors(self, u: Tensor) -> list[Tensor]:
        return [link if step > 0 else link.mH for link, step in zip(self._links(u), self.path)]


@final
class LinkPartition(nn.Module):
    """Active links of one direction, each in an active plaquette of its own; index buffers that move with the module.

    The active plaquette of (x, μ) starts along it, in the plane (μ, ν), and contains no other active link. A loop is
    frozen if it contains no active link at all, and passive if it does without being active.

    Args:
        lattice: at least two axes.
        axes: μ, the direction of the active links, and ν, that of the active plaquettes; counted from 0.
        active: where active links start, bool of shape extents.
        translations: those that keep the mask.
    """

    sites: Tensor  # (n,), flat indices of the sites x of active links
    links: Tensor  # (n,), flat indices μ V + x among all links

    def __init__(self, lattice: Lattice, axes: tuple[int, int], active: Tensor, translations: Translations) -> None:
        super().__init__()
        self.lattice, self.axes, self.translations = lattice, axes, translations
        self.register_buffer("sites", active.flatten().nonzero().flatten(), persistent=False)
        self.register_buffer("links", axes[0] * lattice.volume + self.sites, persistent=False)
        if not bool((self.passes(self.plaquette) == 1)[active].all()):
            raise ValueError("expected one active link in every active plaquette, got more: move fewer links at once")

    @property
    def plaquette(self) -> Path:
        """The active plaquette as a path from x: (μ, ν, -μ, -ν)."""
        mu, nu = (axis + 1 for axis in self.axes)
        return (mu, nu, -mu, -nu)

    def split(self, x: Tensor) -> Tensor:  # (batch, d, *extents, *target) -> (batch, n, *target)
        """The active links."""
        return x.flatten(1, 1 + self.lattice.dimension).index_select(1, self.links)

    def merge(self, x: Tensor, active: Tensor) -> Tensor:  # (batch, *event), (batch, n, *target) -> (batch, *event)
        """x with its active links replaced."""
        return x.flatten(1, 1 + self.lattice.dimension).index_copy(1, self.links, active).view_as(x)

    def passes(self, loop: Path) -> Tensor:  # -> extents, int
        """How often the path from x runs along active links, for every x."""
        active = self.links.new_zeros(self.lattice.dimension * self.lattice.volume).index_fill(0, self.links, 1)
        return active[links_along(self.lattice, loop).to(active.device)].sum(0).reshape(self.lattice.extents)

    @classmethod
    def examples(cls) -> Iterator[LinkPartition]:
        """Whole cycles of stripes of every period, and of parities, in two, three and four dimensions."""
        for extents in [(4, 4), (4, 8), (4, 4, 4), (4, 4, 4, 4)]:
            yield from link_cycle(Lattice(extents))
        for extents, period in [((6, 3), 3), ((2, 4), 2), ((3, 3, 3), 3), ((2, 2, 4, 2), 2)]:
            yield from link_cycle(Lattice(extents), period)
        for extents in [(2, 4), (4, 2, 2), (2, 2, 2, 2)]:
            yield from parity_cycle(Lattice(extents))


def link_stripes(
    lattice: Lattice, axis: int, residue: int, period: int = 4, transverse: int | None = None
) -> LinkPartition:
    """Every `period`-th column of links in direction μ = axis, staggered across the planes.

    Args:
        lattice: the extent along ν divisible by the period p, the others across by p / gcd(p, ⌊p/2⌋).
        axis: μ, counted from 0.
        residue: 0 … p - 1.
        period: p >= 2; 4 leaves half of the plaquettes frozen in two dimensions.
        transverse: ν ≠ μ; the axis after μ if None.

    References: Kanwar et al. (2020), 2003.06413, figure 1 (p = 4, d = 2).
    """
    mu, nu = _checked_axes(lattice, axis, transverse)
    if period < 2 or not 0 <= residue < period:
        raise ValueError(f"expected period >= 2 and 0 <= residue < period, got {period} and {residue}: 4 and 0, say")
    weights = [period // 2] * lattice.dimension
    weights[mu], weights[nu] = 0, 1
    _require_fit(lattice, [period // math.gcd(period, weight) for weight in weights], f"stripes of period {period}")
    colours = lattice.coordinates() @ torch.tensor(weights) % period
    return LinkPartition(lattice, (mu, nu), (colours == residue).reshape(lattice.extents), Translations(step=period))


def link_parity(lattice: Lattice, axis: int, parity: int, transverse: int | None = None) -> LinkPartition:
    """The links in direction `axis` that start at sites with x_1 + … + x_d even (parity 0) or odd; even extents."""
    axes = _checked_axes(lattice, axis, transverse)
    if parity not in (0, 1):
        raise ValueError(f"expected parity 0 or 1, got {parity!r}: alternate them")
    _require_fit(lattice, [2] * lattice.dimension, "parities")
    active = (lattice.coordinates().sum(1) % 2 == parity).reshape(lattice.extents)
    return LinkPartition(lattice, axes, active, Translations(parity=True))


def link_cycle(lattice: Lattice, period: int = 4, turn: int = 0) -> list[LinkPartition]:
    """The p d stripes that together touch every link once: residues in the outer loop, directions in the inner one.

    `turn` takes the plaquettes of other planes: ν = μ + 1 + turn, modulo the axes that are left.
    """
    d = _checked_dimension(lattice)
    return [
        link_stripes(lattice, mu, residue, period, (mu + 1 + turn % (d - 1)) % d)
        for residue in range(period)
        for mu in range(d)
    ]


def parity_cycle(lattice: Lattice) -> list[LinkPartition]:
    """The 2d masks direction × parity that together touch every link once."""
    return [link_parity(lattice, mu, parity) for parity in (0, 1) for mu in range(_checked_dimension(lattice))]


def frozen_loops(partition: LinkPartition, loops: tuple[Path, ...] = (PLAQUETTE, RECTANGLE)) -> dict[Path, Tensor]:
    """For every orientation of the loops, from which sites on (bool, extents) no active link is in it, if from any."""
    images = [image for loop in loops for image in orientations(loop, partition.lattice.dimension)]
    masks = {image: partition.passes(image) == 0 for image in images}
    return {image: mask for image, mask in masks.items() if mask.any()}


def require_frozen_staples(partition: LinkPartition) -> tuple[Path, ...]:
    """The 2(d - 1) staples of an active link as paths from x + μ̂ to x; ValueError if any contains an active link."""
    mu, lattice = partition.axes[0], partition.lattice
    paths = staple_paths(PLAQUETTE, lattice.dimension, mu)
    if any(partition.passes((mu + 1, *path)).flatten()[partition.sites].ne(1).any() for path in paths):
        raise ValueError("expected frozen staples around every active link, got active ones: use link_parity masks")
    return paths


def _checked_dimension(lattice: Lattice) -> int:
    if lattice.dimension < 2:
        raise ValueError(f"expected at least two axes for plaquettes, got {lattice.extents}: pass (8, 8), say")
    return lattice.dimension


def _checked_axes(lattice: Lattice, axis: int, transverse: int | None) -> tuple[int, int]:
    d = _checked_dimension(lattice)
    nu = (axis + 1) % d if transverse is None else transverse
    if not (0 <= axis < d and 0 <= nu < d and axis != nu):
        raise ValueError(f"expected two different axes of {lattice.extents}, got {axis} and {nu}: 0 … {d - 1}")
    return axis, nu


def _require_fit(lattice: Lattice, steps: list[int], purpose: str) -> None:
    """Every extent along an axis with step > 1 must be a multiple of it."""
    if any(n % step for n, step in zip(lattice.extents, steps)):
        fit = tuple(-(-n // step) * step for n, step in zip(lattice.extents, steps))
        raise ValueError(
            f"expected extents in multiples of {tuple(steps)} for {purpose}, got {lattice.extents}: {fit} fits"
        )
