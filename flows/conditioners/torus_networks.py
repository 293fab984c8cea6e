"""Masked networks of angles: the parameters of some angles as functions of others, in a given order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.context import checked_context
from flows.transforms.elementwise import Parity

Levels = tuple[int | None, ...]
"""One for each angle: it is seen by the angles of higher levels; None is not seen at all."""


@dataclass(frozen=True)
class TorusSpec:
    """What a network of angles is made of; plain numbers only.

    Args:
        n_harmonics: K of the features cos kt, sin kt, k = 1…K, of every angle that is seen; 0: it is not looked at.
        hidden: widths of the hidden layers; () is linear in the features, exact series for one angle that is seen.
        odd: keep t ↦ -t as a symmetry, at twice the cost.
        n_context: number of couplings the network is told.
    """

    n_harmonics: int = 2
    hidden: tuple[int, ...] = ()
    odd: bool = False
    n_context: int = 0

    def __post_init__(self) -> None:
        if self.n_harmonics < 0 or self.n_context < 0 or min(self.hidden, default=1) < 1:
            raise ValueError(f"expected hidden >= 1, n_harmonics and n_context >= 0, got {self}: raise them")


@final
class TorusNetwork(nn.Module):
    """One network for the parameters of all moved angles, each a function of the angles of lower levels only.

        p_i = w_i + W_i h_L,  h_l = silu(A_l h_{l-1} + b_l),  h_0 = (cos kt_j, sin kt_j, context),  level j < level i

    W = w = 0 at the start. Masks on A and W keep the order. With `odd`, even parameters are ½[p(t) + p(-t)], odd ones
    ½[p(t) - p(-t)]. Cost O(weights).

    Args:
        levels: of all angles.
        moved: the angles that get parameters.
        parity: of each parameter of one angle.
        spec: features, widths, symmetry and context.
        dtype: of the weights, to be that of the angles.

    References: Germain et al. (2015), 1502.03509, section 3 (masks).
    """

    seen: Tensor
    place: Tensor
    sign: Tensor
    harmonics: Tensor

    def __init__(
        self,
        levels: Levels,
        moved: Sequence[int],
        parity: tuple[Parity, ...],
        spec: TorusSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.spec = spec = spec or TorusSpec()
        order = sorted(moved, key=lambda i: _level(levels, i))
        seen = [i for i, level in enumerate(levels) if level is not None and level < _level(levels, order[-1])]
        inputs = [_level(levels, i) for _ in range(2 * spec.n_harmonics) for i in seen] + [-1] * spec.n_context
        readers = [level for level in (_level(levels, i) for i in order) if level > min(inputs, default=level)]
        self.bias = nn.Parameter(torch.zeros(len(order), len(parity), dtype=dtype))
        self.layers = _hidden_layers(inputs, spec.hidden, dtype) if readers else nn.ModuleList()
        outputs = [level for level in readers for _ in parity]
        self.head = _zero_head(_degrees(inputs, spec.hidden), outputs, dtype) if readers else None
        self.register_buffer("seen", torch.tensor(seen, dtype=torch.long), persistent=False)
        self.register_buffer("place", torch.tensor([order.index(i) for i in moved]), persistent=False)
        self.register_buffer("sign", torch.tensor([-1 if p == "odd" else 1 for p in parity]), persistent=False)
        self.register_buffer("harmonics", torch.arange(1, spec.n_harmonics + 1), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters of the moved angles.  (batch, D) -> (batch, n_moved, n_parameters)"""
        told = checked_context(context, self.spec.n_context) if self.spec.n_context else None
        parameters = self._read(x, told)
        if self.spec.odd:
            parameters = (parameters + self.sign * self._read(-x, told)) / 2
        return parameters.index_select(1, self.place)

    def _read(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The plain network, its rows in the order of levels: the first ones see nothing, and are constant."""
        constant = self.bias.expand(len(x), -1, -1)
        if self.head is None:
            return constant
        waves = self.harmonics[:, None] * x.index_select(1, self.seen).unsqueeze(1)
        features = torch.stack((waves.cos(), waves.sin()), 1).flatten(1)
        h = features if context is None else torch.cat((features, context), 1)
        for layer in self.layers:
            h = F.silu(layer(h))
        rows = self.head(h).unflatten(1, (-1, len(self.sign)))
        return constant + F.pad(rows, (0, 0, constant.shape[1] - rows.shape[1], 0))


class _MaskedLinear(nn.Linear):
    """A linear layer of which some weights are absent."""

    mask: Tensor

    def __init__(self, mask: Tensor, bias: bool, dtype: torch.dtype) -> None:
        super().__init__(mask.shape[1], mask.shape[0], bias, dtype=dtype)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def _level(levels: Levels, angle: int) -> int:
    level = levels[angle]
    if level is None:
        raise ValueError(f"expected a level for the moved angle {angle}, got None: give it one, or do not move it")
    return level


def _degrees(inputs: list[int], hidden: Sequence[int]) -> list[int]:
    """The highest level that each unit of the last hidden layer sees (without one, of each input)."""
    return inputs if not hidden else _spread(sorted(set(inputs)), hidden[-1])


def _spread(levels: list[int], width: int) -> list[int]:
    """Hand out the levels evenly to the units of a layer."""
    if width < len(levels):
        raise ValueError(f"expected at least {len(levels)} hidden units, one per level, got {width}: widen the layers")
    return [levels[unit * len(levels) // width] for unit in range(width)]


def _hidden_layers(inputs: list[int], hidden: Sequence[int], dtype: torch.dtype) -> nn.ModuleList:
    layers, below = nn.ModuleList(), torch.tensor(inputs)
    for width in hidden:
        own = torch.tensor(_spread(sorted(set(inputs)), width))
        layers.append(_MaskedLinear(below <= own[:, None], True, dtype))
        below = own
    return layers


def _zero_head(below: list[int], outputs: list[int], dtype: torch.dtype) -> _MaskedLinear:
    head = _MaskedLinear(torch.tensor(below) < torch.tensor(outputs)[:, None], False, dtype)
    nn.init.zeros_(head.weight)
    return head
