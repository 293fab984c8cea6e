"""Which links move and which loops are frozen: masks of a direction and a residue of the sites, in d >= 2.

| masks          | active links (x, μ)                                  | masks per cycle      | even frozen loops        |
|----------------|------------------------------------------------------|----------------------|--------------------------|
| `link_stripes` | x_ν + ⌊p/2⌋ Σ_{ρ≠μ,ν} x_ρ ≡ residue (mod p)          | p d (p = 4: 8, 12, 16) | plaquettes for p >= 3  |
| `link_parity`  | x_1 + … + x_d ≡ parity (mod 2)                       | 2 d                  | rectangles 2ν̂ × μ̂        |

Opposite links of a plaquette must not move together, so one direction needs at least two masks: 2d in a cycle (4, 6, 8)
is the least, and `link_stripes` reaches it with period 2. Period 3 is the least that leaves plaquettes of the plane (μ, ν)
frozen, period 4 leaves half of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import final

import torch
from torch import Tensor, nn

from lattices.invariance import Translations
from lattices.lattice import Lattice
from lattices.loops import PLAQUETTE, RECTANGLE, Path, orientations, staple_paths


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

    def at_sites(self, v: Tensor) -> Tensor:  # (batch, *extents, *rest) -> (batch, n, *rest)
        """Values at the sites where active links start."""
        return v.flatten(1, self.lattice.dimension).index_select(1, self.sites)

    def passes(self, loop: Path) -> Tensor:  # -> extents, int
        """How often the path from x runs along active links, for every x."""
        mu, d = self.axes[0] + 1, self.lattice.dimension
        active = torch.zeros(self.lattice.volume, dtype=torch.long, device=self.sites.device)
        active = active.index_fill(0, self.sites, 1).reshape(self.lattice.extents)
        total, here = torch.zeros_like(active), [0] * d
        for step in loop:
            backwards = [0] * d
            backwards[abs(step) - 1] = 1 if step > 0 else -1
            start = here if step > 0 else [a + b for a, b in zip(here, backwards)]
            if abs(step) == mu:
                total = total + active.roll([-a for a in start], tuple(range(d)))
            here = [a + b for a, b in zip(here, backwards)]
        return total

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
    """Every `period`-th column of links in direction μ = axis, staggered across the planes; x_ν = `residue` at the origin.

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
    _require_fit(lattice, [period // gcd(period, weight) for weight in weights], f"stripes of period {period}")
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
    """For every orientation of the loops, from which sites on (bool, extents) it contains no active link, if from any."""
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
