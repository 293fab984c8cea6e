"""Convolutional conditioners that know even from odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.conditioners.conditioner import Conditioner
from flows.conditioners.convolution import OrbitConvolution, check_sizes, periodic_halo
from flows.context import checked_context
from flows.transforms.elementwise import Parity
from lattices.invariance import PointGroup, SignFlip, Translations
from lattices.lattice import Lattice


@dataclass(frozen=True)
class ConvolutionSpec:
    """What a convolutional conditioner is made of; plain numbers only.

    Args:
        hidden: channels of the convolutions.
        kernel_size: odd number of sites per axis.
        point_group: share kernels over the point group.
        odd: keep x ↦ -x as a symmetry; otherwise biases break it.
        n_context: number of couplings the network is told.
    """

    hidden: tuple[int, ...] = (8, 8)
    kernel_size: int = 3
    point_group: bool = True
    odd: bool = True
    n_context: int = 0

    def __post_init__(self) -> None:
        check_sizes(self.hidden, self.kernel_size, self.n_context)


@final
class ParityConvolutions(Conditioner):
    """Odd convolutions of the frozen field, and their squares for what is even.

        h₀ = φ,  h_l = tanh(K_l * h_{l-1} (1 + G_l c)),  e = silu(A h² + B c + b),
        p_even = W e + w,  p_odd = U (e h),

    with c the context and W = w = U = 0 at the start. The field is padded once by the sum of all radii, and the
    pointwise part runs on the asked sites alone. Cost O(V Σ |K_l|), and O(n_sites · n_parameters).

    Args:
        lattice: where the field lives.
        parity: of each parameter.
        spec: channels, kernels, symmetries and context.
        dtype: of the weights, to be that of the fields.

    Symmetries: translations; the point group and the sign flip as `spec` asks.
    """

    halo: Tensor
    order: Tensor

    def __init__(
        self,
        lattice: Lattice,
        parity: tuple[Parity, ...],
        spec: ConvolutionSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.lattice, self.parity, self.spec = lattice, parity, spec or ConvolutionSpec()
        spec, depth = self.spec, len(self.spec.hidden)
        self.symmetries = (Translations(),) + (PointGroup(),) * spec.point_group + (SignFlip(),) * spec.odd
        self.register_buffer("halo", periodic_halo(lattice, depth * (spec.kernel_size // 2)), persistent=False)
        steps = zip((1, *spec.hidden), spec.hidden)
        self.layers = nn.ModuleList(_Layer(lattice, channels, spec, dtype) for channels in steps)
        width, n_even = spec.hidden[-1], parity.count("even")
        self.hidden = nn.Linear(width + spec.n_context, width, dtype=dtype)
        self.even = _zero_linear(width, n_even, True, dtype)
        self.odd = _zero_linear(width, len(parity) - n_even, not spec.odd, dtype)
        even_first = sorted(range(len(parity)), key=lambda i: parity[i] == "odd")
        self.register_buffer("order", torch.tensor(even_first).argsort(), persistent=False)

    def forward(self, frozen: Tensor, sites: Tensor, context: Tensor | None = None) -> Tensor:
        c = checked_context(context, self.spec.n_context) if self.spec.n_context else None
        h = frozen.flatten(1).index_select(1, self.halo.flatten()).unflatten(1, self.halo.shape).unsqueeze(1)
        for layer in self.layers[:-1]:
            h = torch.tanh(layer(h, c))
        h = self.layers[-1](h, c).flatten(2).index_select(2, sites)
        h = torch.tanh(h).transpose(1, 2)  # (batch, n_sites, channels)
        told = (c.unsqueeze(1).expand(-1, len(sites), -1),) if c is not None else ()
        e = F.silu(self.hidden(torch.cat((h.square(), *told), -1)))
        heads = [(head, u) for head, u in ((self.even, e), (self.odd, e * h)) if head is not None]
        return self._read_out(heads)

    def _read_out(self, heads: Sequence[tuple[nn.Linear, Tensor]]) -> Tensor:  # -> (batch, n_sites, n_parameters)
        """All heads in one product, whose rows stand in the order of `parity`."""
        weight = torch.block_diag(*(head.weight for head, _ in heads))
        biases: list[Tensor] = [h.weight.new_zeros(len(h.weight)) if h.bias is None else h.bias for h, _ in heads]
        inputs = torch.cat([u for _, u in heads], -1)
        return F.linear(inputs, weight[self.order], torch.cat(biases)[self.order])


def _zero_linear(n_in: int, n_out: int, bias: bool, dtype: torch.dtype) -> nn.Linear | None:
    """A linear map that starts at zero; None if nothing comes out of it."""
    if not n_out:
        return None
    linear = nn.Linear(n_in, n_out, bias, dtype=dtype)
    for weight in linear.parameters():
        nn.init.zeros_(weight)
    return linear


class _Layer(nn.Module):
    """K * h (1 + G c), plus a bias where the sign flip is given up."""

    def __init__(self, lattice: Lattice, channels: tuple[int, int], spec: ConvolutionSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.convolution = OrbitConvolution(lattice, channels, spec.kernel_size // 2, spec.point_group, dtype)
        column = (channels[1], *(1 for _ in lattice.extents))
        self.bias = None if spec.odd else nn.Parameter(torch.zeros(column, dtype=dtype))
        self.gain = nn.Parameter(torch.zeros(spec.n_context, *column, dtype=dtype)) if spec.n_context else None

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        h = self.convolution(h)
        if context is not None and self.gain is not None:
            h = h * (1 + torch.tensordot(context, self.gain, 1))
        return h if self.bias is None else h + self.bias
