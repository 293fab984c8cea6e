"""The parts of gauge-equivariant networks: maps between site matrices W that transform as W(x) ↦ Ω(x) W(x) Ω(x)†.

Layout: W of shape (batch, channels, frames, *extents, N, N), links u of shape (batch, d, *extents, N, N), from
`lattices.loops.matrices`. Weights are real numbers, used in the precision of the fields.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from flows.conditioners.frames import Frames, signed_axes
from lattices.loops import Path, real_trace, shifted, transporter


def transported(u: Tensor, w: Tensor, step: int) -> Tensor:  # step = ±1, …, ±d, as in paths
    """W of the next site in a direction carried to x: U_μ(x) W(x + μ̂) U_μ(x)†, or back along U_μ(x - μ̂)."""
    d, axis = u.shape[1], abs(step) - 1
    link = u[:, axis, None, None]
    return link @ shifted(w, axis, 1, d) @ link.mH if step > 0 else shifted(link.mH @ w @ link, axis, -1, d)


def loop_features(u: Tensor, loops: tuple[Path, ...], frames: Frames) -> Tensor:  # -> (batch, channels, frames, …)
    """Untraced loops at every site, as seen from each frame; without frames one channel for each plane they lie in."""
    channels = [channel for loop in loops for channel in frames.loops(loop)]
    return torch.stack(
        [torch.stack([sum_of(u, paths) / len(paths) for paths in channel], 1) for channel in channels], 1
    )


def sum_of(u: Tensor, paths: list[Path]) -> Tensor:  # -> (batch, *extents, N, N)
    """Σ of the transporters along some paths."""
    return torch.stack([transporter(u, path) for path in paths]).sum(0)


def extended(w: Tensor) -> Tensor:  # (batch, channels, …, N, N) -> (batch, 1 + 2 channels, …, N, N)
    """1, W and W†: with them products contain sums."""
    unit = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device).expand_as(w[:, :1])
    return torch.cat([unit, w, w.mH], 1)


@final
class TransportedConvolution(nn.Module):
    """W'_{ai}(x) = Σ_bj [ω_abij(0) W_bj(x) + Σ_{±μ, k} ω_abij(±μ, k) U W_bj(x ± k μ̂) U†], U along the line to x.

    ω is equal for all (i, j, ±μ) that the point group relates, if the frames ask for it. Cost
    V (frames · channels)² (1 + 2d radius) N².

    Args:
        frames: which i and j there are.
        channels: numbers of input and output channels.
        radius: how far to look along each axis.

    Shape: links, (batch, in, frames, *extents, N, N) -> (batch, out, frames, *extents, N, N).
    References: Favoni, Ipp, Müller and Schuh 2020, arXiv:2012.12901.
    """

    shared: Tensor

    def __init__(self, frames: Frames, channels: tuple[int, int], radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.register_buffer("shared", frames.between(radius), persistent=False)
        n_in, n_out = channels
        scale = 1 / math.sqrt(n_in * self.shared[0].numel())
        shape = (n_out, n_in, int(self.shared.max()) + 1)
        self.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64) * scale)

    def forward(self, u: Tensor, w: Tensor) -> Tensor:
        shells = [[w]]
        seen = dict.fromkeys(signed_axes(u.shape[1]), w)
        for _ in range(self.radius):
            seen = {step: transported(u, far, step) for step, far in seen.items()}
            shells.append(list(seen.values()))
        neighbours = torch.stack([far for shell in shells for far in shell], 3)
        return torch.einsum("abijs,nbjs...->nai...", self.weight[..., self.shared].to(w.dtype), neighbours)


@final
class Bilinear(nn.Module):
    """W''_a(x) = Σ_bc α_abc W_b(x) W'_c(x) over b, c that include 1 and the adjoints: longer loops out of short ones.

    The same α in every frame. Cost V frames channels³ N² and channels² N³.

    Shape: (batch, channels, …, N, N) twice -> (batch, out, …, N, N).
    References: Favoni, Ipp, Müller and Schuh 2020, arXiv:2012.12901.
    """

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        left, right = (1 + 2 * n for n in channels)
        scale = 1 / math.sqrt(left * right)
        self.weight = nn.Parameter(torch.randn(channels[1], left, right, dtype=torch.float64) * scale)

    def forward(self, w: Tensor, other: Tensor) -> Tensor:
        n = w.shape[-1]
        left = extended(w).movedim(1, -2).flatten(-2)  # (batch, …, N, b N): one product per site instead of one per b
        right = torch.einsum("abc,nc...jk->n...bjak", self.weight.to(w.dtype), extended(other))
        return (left @ right.flatten(-2).flatten(-3, -2)).unflatten(-1, (-1, n)).movedim(-2, 1)


@final
class TraceGate(nn.Module):
    """W_a(x) ↦ W_a(x) σ(g_a Re Tr W_a(x) / N + b_a + G_a c): a factor that no gauge transformation changes.

    Args:
        channels: number of channels.
        n_context: numbers in c.

    References: Favoni, Ipp, Müller and Schuh 2020, arXiv:2012.12901.
    """

    def __init__(self, channels: int, n_context: int = 0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=torch.float64))
        self.told = nn.Parameter(torch.zeros(n_context, channels, dtype=torch.float64)) if n_context else None

    def forward(self, w: Tensor, context: Tensor | None = None) -> Tensor:
        trace = real_trace(w)
        bias = self.bias.to(trace)[None]
        if self.told is not None and context is not None:
            bias = bias + context.to(trace) @ self.told.to(trace)
        column = (..., *(None for _ in trace.shape[2:]))
        gate = torch.sigmoid(self.gain.to(trace)[column] * trace + bias[column])
        return w * gate[..., None, None]
