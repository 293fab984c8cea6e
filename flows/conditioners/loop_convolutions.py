"""Convolutions of frozen Wilson loops: what a coupling layer of links may depend on without losing gauge symmetry."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.conditioners.convolution import OrbitConvolution, check_sizes, periodic_halo
from flows.context import checked_context
from flows.transforms.elementwise import Parity
from lattices.fields import FieldSpace
from lattices.gauge import require_links
from lattices.lattice import Lattice
from lattices.link_partitions import LinkPartition, Transport, frozen_loops
from lattices.loops import PLAQUETTE, RECTANGLE
from symmetries.lie import SUN


@dataclass(frozen=True)
class LoopSpec:
    """What a conditioner of frozen loops is made of; plain numbers only.

    Args:
        hidden: channels of the convolutions.
        kernel_size: odd number of sites per axis.
        rectangles: look at 2 × 1 loops beside plaquettes.
        n_context: number of couplings the network is told, as constant input channels.
    """

    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    rectangles: bool = True
    n_context: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.hidden, self.kernel_size, self.n_context)


@final
class LoopConvolutions(nn.Module):
    """Parameters for every active link from Re and Im of Tr W / N of all frozen loops W; others are masked to zero.

        e = silu(K * … silu(K * [Re W, c] + b)),  o = tanh(K * … tanh(K * Im W)),  g = silu(A [e, o²] + b),
        p_even = B g + b,  p_odd = C (g o),

    with c the context and B = C = 0 at the start. Under charge conjugation U ↦ U* even parameters stay and odd ones
    change sign. Traces of SU(2) are real: no odd part. Cost O(V Σ |K|), periodic, the field padded once.

    Args:
        field: links of a group.
        partition: which links are active.
        parity: of each parameter.
        spec: loops, channels, kernels and context.
        dtype: of the weights, to be the real one of the fields.

    Shape: (batch, d, *extents, *element) -> (batch, n_active, n_parameters).
    Symmetries: gauge, charge conjugation, centre, the translations that keep the partition.
    """

    places: Tensor  # flat positions of frozen loops in (n_loops, *extents)
    halo: Tensor
    order: Tensor  # (n_parameters,)

    def __init__(
        self,
        field: FieldSpace,
        partition: LinkPartition,
        parity: tuple[Parity, ...],
        spec: LoopSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.field, self.partition, self.spec = field, partition, spec or LoopSpec()
        self.has_odd, n_odd = require_links(field) != SUN(2), parity.count("odd")
        if n_odd and not self.has_odd:
            raise ValueError("expected even parameters alone for SU(2), where loops are real, got odd ones: drop them")
        masks = frozen_loops(partition, (PLAQUETTE, RECTANGLE) if self.spec.rectangles else (PLAQUETTE,))
        if not masks:
            raise ValueError("expected frozen loops to look at, got none of 1 × 1: pass rectangles=True")
        lattice, frozen = field.lattice, [mask.flatten().nonzero().flatten() for mask in masks.values()]
        self.loops = nn.ModuleList(Transport(lattice, path, sites) for path, sites in zip(masks, frozen))
        places = torch.cat([i * lattice.volume + sites for i, sites in enumerate(frozen)])
        self.register_buffer("places", places, persistent=False)
        radius = len(self.spec.hidden) * (self.spec.kernel_size // 2)
        self.register_buffer("halo", periodic_halo(lattice, radius), persistent=False)
        width = self.spec.hidden[-1]
        self.even = _Stack(lattice, len(masks) + self.spec.n_context, self.spec, dtype, bias=True)
        self.odd = _Stack(lattice, len(masks), self.spec, dtype, bias=False) if self.has_odd else None
        self.mix = nn.Linear(width * (1 + self.has_odd), width, dtype=dtype)
        self.even_head = _zero_linear(width, len(parity) - n_odd, dtype, bias=True)
        self.odd_head = _zero_linear(width, n_odd, dtype, bias=False) if n_odd else None
        even_first = sorted(range(len(parity)), key=lambda i: parity[i] == "odd")
        self.register_buffer("order", torch.tensor(even_first).argsort(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        loops = self._traces(x)
        even = self._hidden(self.even, self._told(loops.real, context))
        if self.odd is None:
            return self.even_head(F.silu(self.mix(even))).index_select(-1, self.order)
        odd = torch.tanh(self._hidden(self.odd, loops.imag))
        gate = F.silu(self.mix(torch.cat((even, odd.square()), -1)))
        heads = [self.even_head(gate)] + ([] if self.odd_head is None else [self.odd_head(gate * odd)])
        return torch.cat(heads, -1).index_select(-1, self.order)

    def _traces(self, x: Tensor) -> Tensor:  # -> (batch, n_loops, *extents), complex
        """Tr W / N of the frozen loops, 0 elsewhere."""
        lattice, traces = self.field.lattice, torch.cat([loop.trace(x) for loop in self.loops], 1)  # type: ignore[operator]
        everywhere = traces.new_zeros(len(x), len(self.loops) * lattice.volume)
        return everywhere.index_copy(1, self.places, traces).unflatten(1, (-1, *lattice.extents))

    def _told(self, loops: Tensor, context: Tensor | None) -> Tensor:
        """The context as further channels."""
        if not self.spec.n_context:
            return loops
        c = checked_context(context, self.spec.n_context)
        return torch.cat((loops, c[(...,) + (None,) * (loops.ndim - 2)].expand(-1, -1, *loops.shape[2:])), 1)

    def _hidden(self, stack: nn.Module, h: Tensor) -> Tensor:  # (batch, channels, *extents) -> (batch, n, width)
        padded = h.flatten(2).index_select(2, self.halo.flatten()).unflatten(2, self.halo.shape)
        return stack(padded).flatten(2).index_select(2, self.partition.sites).transpose(1, 2)


class _Stack(nn.Module):
    """Valid convolutions with silu (and biases) or tanh (and none) between them."""

    def __init__(self, lattice: Lattice, n_in: int, spec: LoopSpec, dtype: torch.dtype, bias: bool) -> None:
        super().__init__()
        radius, column = spec.kernel_size // 2, (1,) * lattice.dimension
        steps = pairwise((n_in, *spec.hidden))
        self.layers = nn.ModuleList(OrbitConvolution(lattice, step, radius, False, dtype) for step in steps)
        biases = [torch.zeros(n, *column, dtype=dtype) for n in spec.hidden] if bias else []
        self.biases = nn.ParameterList([nn.Parameter(b) for b in biases])

    def forward(self, h: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            if i:
                h = F.silu(h) if len(self.biases) else torch.tanh(h)
            h = layer(h) + self.biases[i] if len(self.biases) else layer(h)
        return h


def _zero_linear(n_in: int, n_out: int, dtype: torch.dtype, bias: bool) -> nn.Linear:
    linear = nn.Linear(n_in, n_out, bias, dtype=dtype)
    for weight in linear.parameters():
        nn.init.zeros_(weight)
    return linear
