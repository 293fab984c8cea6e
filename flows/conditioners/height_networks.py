"""Small networks that tell one coordinate of a point what the coordinates before it are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from flows.context import checked_context


@dataclass(frozen=True)
class NetworkSpec:
    """What the networks of a triangular map are made of; plain numbers only.

    Args:
        hidden: widths of the hidden layers; () is a linear map.
        n_context: number of couplings the networks are told.
    """

    hidden: tuple[int, ...] = (16,)
    n_context: int = 0

    def __post_init__(self) -> None:
        if any(type(width) is not int or width < 1 for width in self.hidden):
            raise ValueError(f"expected hidden widths >= 1, got {self.hidden}: pass (16,), or () for linear maps")
        if type(self.n_context) is not int or self.n_context < 0:
            raise ValueError(f"expected n_context >= 0, got {self.n_context!r}: the number of couplings, or 0")


@final
class HeightNetwork(nn.Module):
    """p = b + W tanh(… tanh(A (t_1 … t_m, c) + a)), with b = W = 0 at the start; p = b where nothing is told.

    Args:
        n_heights: m, how many heights in [-1, 1] come in.
        n_parameters: how many numbers come out.
        spec: hidden widths and number of couplings c.
        dtype: of the weights, to be that of the fields.
    """

    def __init__(self, n_heights: int, n_parameters: int, spec: NetworkSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        self.start = nn.Parameter(torch.zeros(n_parameters, dtype=dtype))
        n_inputs = n_heights + spec.n_context
        self.network = _network((n_inputs, *spec.hidden, n_parameters), dtype) if n_inputs else None

    def forward(
        self, heights: Sequence[Tensor], context: Tensor | None, like: Tensor
    ) -> Tensor:  # [(batch, *extents)], (batch, n), (batch, *extents) -> (batch, *extents, n_parameters)
        """The parameters for every point; `like` gives the shape where no height comes in."""
        if self.network is None:
            return self.start.expand(*like.shape, -1)
        inputs = [height.unsqueeze(-1) for height in heights]
        if self.spec.n_context:
            told = checked_context(context, self.spec.n_context)
            inputs.append(told.view(len(told), *(1 for _ in like.shape[1:]), -1).expand(*like.shape, -1))
        return self.start + self.network(torch.cat(inputs, -1))


def _network(widths: tuple[int, ...], dtype: torch.dtype) -> nn.Sequential:
    """Linear maps with tanh between them; the last one has no bias and starts at zero."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths[:-1]):
        layers += [nn.Linear(n_in, n_out, dtype=dtype), nn.Tanh()]
    last = nn.Linear(widths[-2], widths[-1], bias=False, dtype=dtype)
    nn.init.zeros_(last.weight)
    return nn.Sequential(*layers, last)
