"""Spins drawn along random spanning trees: a base for spin models that knows what neighbours do to each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.bases import default_generator
from flows.distribution import Distribution, require_dtype
from flows.sampling.draws import von_mises_fisher
from lattices.exact.spins import on_link
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import GlobalRotations, from_vectors, require_spins, unit_vectors
from lattices.theories.on import ON
from lattices.theories.xy import XY

WIDE = 16.0
"""Range of the logarithms of conductances beyond which a determinant loses digits, e^16 of double precision's."""

ABSENT = -1e30
"""The logarithm of the conductance of no link, small but finite."""


@final
class SpanningTrees(Distribution):
    """The mixture, over all spanning trees T of the lattice, of spins with independent bonds along T.

        q(s) = 1/N Σ_T 1/|S| Π_{xy ∈ T} f(s_x·s_y) = det' L(f) / (N |S|),    f(c) = e^{κ c} / ∫ e^{κ s·s'} ds'

    By Kirchhoff's theorem the sum is a determinant: L(f) is the lattice Laplacian with conductances f(s_x·s_y), det'
    leaves out one row and column, N = det' L(1). Samples are independent and exact: a random walker paints every
    site that it enters for the first time with a spin drawn around the spin it comes from (Aldous and Broder). Every
    bond is on the tree with probability (V - 1)/dV and then has its full energy; around plaquettes, loops are open.
    What `GaussianField` is to scalar fields: of the right width for large β, exact in d = 1 without periodicity.
    Cost V³ for a density, more of it where κ c varies by more than 16; some V log² V steps of the walk for a batch.

    Args:
        field: angles or unit vectors on sites.
        kappa: κ, of either sign; 0 is the uniform distribution.
        dtype: of samples and densities.

    Symmetries: translations, point group, global O(n).
    References: Kirchhoff 1847; Aldous 1990, SIAM J. Discrete Math. 3, 450; Broder 1989, FOCS.
    """

    kappa: Tensor
    log_normaliser: Tensor
    symmetries: tuple[Symmetry, ...] = (Translations(), PointGroup(), GlobalRotations())

    def __init__(self, field: FieldSpace, kappa: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        n = require_spins(field)
        if not math.isfinite(kappa):
            raise ValueError(f"expected a finite kappa, got {kappa}: 0 is the uniform distribution")
        self.field, lattice = field, field.lattice
        self.register_buffer("kappa", torch.tensor(float(kappa), dtype=dtype))
        trees = _log_trees(torch.zeros(1, lattice.dimension, lattice.volume, dtype=torch.float64), lattice)
        bond = on_link(n, kappa)
        total = float(trees) + (lattice.volume - 1) * bond.log_trivial + bond.log_measure
        self.register_buffer("log_normaliser", torch.tensor(total, dtype=dtype))

    @classmethod
    def of(cls, action: XY | ON, dtype: torch.dtype = torch.float64, stretch: float = 1.2) -> SpanningTrees:
        """With κ = stretch · dβ: at 1, a bond of the tree fluctuates by the 1/dβ of spin-wave theory; 1.2 makes up for
        some of the bonds that are not on the tree."""
        if not isinstance(action, XY | ON):
            raise ValueError(f"expected XY or ON, got {action}: start from White(action.field)")
        return cls(action.field, stretch * len(action.extents) * action.beta, dtype)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        generator = default_generator(self.kappa.device) if generator is None else generator
        s = self._painted(n, generator).to(self.kappa)
        x = from_vectors(self.field, s.reshape(n, *self.field.lattice.extents, s.shape[-1]))
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        x = require_dtype(self, self.field.validate(x, values=False))
        s, lattice = unit_vectors(self.field, x.double()), self.field.lattice
        cosines = torch.stack([(s * s.roll(-1, axis - 1)).sum(-1) for axis in lattice.axes], 1).flatten(2)
        return _log_trees(float(self.kappa) * cosines, lattice).to(x) - self.log_normaliser

    def _painted(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, V, components), float64
        """Unit vectors painted by n walkers that start at the origin, in storage order."""
        lattice, device = self.field.lattice, generator.device
        neighbours, rows = lattice.neighbours(device), torch.arange(n if lattice.volume > 1 else 0, device=device)
        s = torch.zeros(n, lattice.volume, require_spins(self.field), dtype=torch.float64, device=device)
        painted = torch.zeros(n, lattice.volume, dtype=torch.bool, device=device)
        here = torch.zeros(n, dtype=torch.int64, device=device)
        painted[:, 0] = True
        s[:, 0] = von_mises_fisher(s[:, 0], generator)
        while len(rows):
            step = torch.randint(neighbours.shape[1], here.shape, generator=generator, device=device)
            there = neighbours[here, step]
            new = ~painted[rows, there]
            if new.any():
                where, parents = rows[new], s[rows[new], here[new]]
                s[where, there[new]] = von_mises_fisher(float(self.kappa) * parents, generator)
                painted[where, there[new]] = True
                going = ~painted[rows].all(1)
                rows, there = rows[going], there[going]
            here = there
        return s

    @classmethod
    def examples(cls) -> Iterator[SpanningTrees]:
        """Planar spins, antiferromagnets in three components, and a chain."""
        yield cls(FieldSpace(Lattice((2, 2)), Circle()), kappa=0.7)
        yield cls(FieldSpace(Lattice((2,)), Sphere(2)), kappa=-0.8)
        yield cls.of(XY(extents=(2, 3), beta=0.5), dtype=torch.float32)
        yield cls.of(ON(extents=(3,), n=4, beta=1.0))


def _log_trees(log_weights: Tensor, lattice: Lattice) -> Tensor:  # (batch, d, V) -> (batch,)
    """log Σ_T Π_{b ∈ T} w_b, the weights being those of the links (μ, x)."""
    largest, least = log_weights.flatten(1).amax(1), log_weights.flatten(1).amin(1)
    if bool((largest - least > WIDE).any()):
        return _eliminated(_log_adjacency(log_weights, lattice))
    weights = (log_weights - largest[:, None, None]).exp()
    here, there = _ends(lattice, log_weights.device)
    empty = weights.new_zeros(len(weights), lattice.volume**2)
    adjacency = empty.index_add(1, (lattice.volume * here + there).flatten(), weights.flatten(1))
    adjacency = adjacency.unflatten(1, (lattice.volume, -1))
    adjacency = adjacency + adjacency.mT
    laplacian = adjacency.sum(2).diag_embed() - adjacency
    return torch.linalg.slogdet(laplacian[:, 1:, 1:]).logabsdet + (lattice.volume - 1) * largest


def _ends(lattice: Lattice, device: torch.device) -> tuple[Tensor, Tensor]:  # -> (d, V), (d, V)
    """The two sites of every link."""
    there = lattice.neighbours(device)[:, : lattice.dimension].T
    return torch.arange(lattice.volume, device=device).expand_as(there), there


def _log_adjacency(log_weights: Tensor, lattice: Lattice) -> Tensor:  # (batch, d, V) -> (batch, V, V)
    absent = log_weights.new_full((len(log_weights), lattice.volume, lattice.volume), ABSENT)
    total = absent
    for axis, (here, there) in enumerate(zip(*_ends(lattice, log_weights.device))):
        for rows, columns in ((here, there), (there, here)):
            placed = absent.index_put((torch.arange(len(absent), device=here.device)[:, None], rows, columns),
                                      log_weights[:, axis])  # fmt: skip
            total = torch.logaddexp(total, placed)
    return total


def _eliminated(log_c: Tensor) -> Tensor:  # (batch, V, V) -> (batch,)
    """The same sum site by site, w_ij ← w_ij + w_ik w_kj / Σ_l w_kl: nothing is subtracted, nothing underflows."""
    total = log_c.new_zeros(len(log_c))
    for k in range(log_c.shape[1] - 1, 0, -1):
        row = log_c[:, k, :k]
        degree = row.logsumexp(1)
        through = row[:, :, None] + row[:, None] - degree[:, None, None]
        log_c, total = torch.logaddexp(log_c[:, :k, :k], through.clamp(min=ABSENT)), total + degree
    return total
