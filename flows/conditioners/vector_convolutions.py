"""Convolutions of vectors that commute with global rotations: what couplings of spins are steered by."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.conditioners.convolution import OrbitConvolution, check_sizes, periodic_halo
from flows.context import checked_context
from lattices.lattice import Lattice


@dataclass(frozen=True)
class VectorSpec:
    """What a conditioner of frozen spins is made of; plain numbers only.

    Args:
        hidden: channels of the convolutions, each a vector on every site.
        kernel_size: odd number of sites per axis.
        n_context: number of couplings the network is told.
    """

    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    n_context: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.hidden, self.kernel_size, self.n_context)


@final
class VectorConvolutions(nn.Module):
    """Invariant numbers, and vectors that turn with the spins, from convolutions of the frozen spins.

        h₀ = s,  h_l = ρ(K_l * h_{l-1} (1 + G_l c)),  ρ(v) = v / √(1 + v²),  g = (h, ρ(γ ⟨s⟩)),
        e = silu(A [g_a·g_b] + B c + b),  numbers = W e + w,  vectors_k = Σ_a (U e + u)_ka g_a

    with h the last h_l, c the context, and W = w = U = u = 0 at the start. Kernels are shared over the point group:
    K * h holds the mean fields of the shells around a site. The mean ⟨s⟩ over the lattice gives all of them a common
    direction in one layer. A tiled field has tiled parameters. Cost O(V Σ |K_l| n), the field padded once.

    Args:
        lattice: where the spins live.
        n_numbers: invariant numbers per asked site.
        n_vectors: equivariant vectors per asked site.
        spec: channels, kernels and context.
        dtype: of the weights, to be that of the spins.

    Shape: (batch, *extents, n), (n_sites,) -> (batch, n_sites, n_numbers), (batch, n_sites, n_vectors, n).
    Symmetries: translations, point group, global O(n).
    """

    halo: Tensor
    pairs: Tensor  # of vectors, row by row in their upper triangle

    def __init__(
        self,
        lattice: Lattice,
        n_numbers: int,
        n_vectors: int,
        spec: VectorSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.lattice, self.spec, self.n_vectors = lattice, spec or VectorSpec(), n_vectors
        spec, width = self.spec, self.spec.hidden[-1]
        radius = len(spec.hidden) * (spec.kernel_size // 2)
        self.register_buffer("halo", periodic_halo(lattice, radius), persistent=False)
        pairs = torch.ones(width + 1, width + 1).triu().flatten().nonzero().flatten()
        self.register_buffer("pairs", pairs, persistent=False)
        steps = pairwise((1, *spec.hidden))
        self.layers = nn.ModuleList(_Layer(lattice, channels, spec, dtype) for channels in steps)
        self.gain = nn.Parameter(torch.tensor(8.0, dtype=dtype))
        self.hidden = nn.Linear(len(pairs) + spec.n_context, width, dtype=dtype)
        self.numbers = _zero_linear(width, n_numbers, dtype) if n_numbers else None
        self.coefficients = _zero_linear(width, n_vectors * (width + 1), dtype)

    def forward(self, frozen: Tensor, sites: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        c = checked_context(context, self.spec.n_context) if self.spec.n_context else None
        spins = frozen.flatten(1, self.lattice.dimension)
        g = torch.cat((self._shells(spins, c, sites), self._magnetisation(spins, sites)), -2)
        products = (g @ g.mT).flatten(-2).index_select(-1, self.pairs)
        told = () if c is None else (c.unsqueeze(1).expand(-1, len(sites), -1),)
        e = F.silu(self.hidden(torch.cat((products, *told), -1)))
        numbers = e.new_zeros(*e.shape[:2], 0) if self.numbers is None else self.numbers(e)
        return numbers, self.coefficients(e).unflatten(-1, (self.n_vectors, -1)) @ g

    def _shells(self, spins: Tensor, context: Tensor | None, sites: Tensor) -> Tensor:
        """The last h_l at the asked sites.  (batch, V, n) -> (batch, n_sites, width, n)"""
        h = spins.index_select(1, self.halo.flatten()).transpose(1, 2).unflatten(2, self.halo.shape).unsqueeze(2)
        for layer in self.layers:
            h = _squashed(layer(h, context), 1)
        return h.flatten(3).index_select(3, sites).permute(0, 3, 2, 1)

    def _magnetisation(self, spins: Tensor, sites: Tensor) -> Tensor:  # -> (batch, n_sites, 1, n)
        mean = _squashed(self.gain * spins.mean(1), -1)
        return mean[:, None, None].expand(-1, len(sites), -1, -1)


def _squashed(v: Tensor, axis: int) -> Tensor:
    """ρ(v), for vectors along an axis."""
    return v * torch.rsqrt(1 + v.square().sum(axis, keepdim=True))


class _Layer(nn.Module):
    """K * h (1 + G c), component by component."""

    def __init__(self, lattice: Lattice, channels: tuple[int, int], spec: VectorSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.convolution = OrbitConvolution(lattice, channels, spec.kernel_size // 2, point_group=True, dtype=dtype)
        shape = spec.n_context, 1, channels[1], *(1 for _ in lattice.extents)
        self.gain = nn.Parameter(torch.zeros(shape, dtype=dtype)) if spec.n_context else None

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:  # (batch, n, in, *box) -> (batch, n, out, *box')
        h = self.convolution(h.flatten(0, 1)).unflatten(0, h.shape[:2])
        return h if context is None or self.gain is None else h * (1 + torch.tensordot(context, self.gain, 1))


def _zero_linear(n_in: int, n_out: int, dtype: torch.dtype) -> nn.Linear:
    """A linear map that starts at zero."""
    linear = nn.Linear(n_in, n_out, dtype=dtype)
    for weight in linear.parameters():
        nn.init.zeros_(weight)
    return linear
