"""Wilson loops, Creutz ratios and Polyakov loops of link fields, one value or one table for each configuration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import permutations, product

import numpy as np
import torch
from torch import Tensor

from lattices.fields import FieldSpace
from lattices.gauge import require_links
from lattices.loops import planes, plaquettes, real_trace
from lattices.statistics import Estimate, jackknife
from lattices.statistics.samples import Samples


def plaquette_angles(x: Tensor) -> Tensor:  # (batch, d, *extents) -> (batch, planes, *extents)
    """θ_P = θ_μ(x) + θ_ν(x + μ̂) - θ_μ(x + ν̂) - θ_ν(x) of U(1) for μ < ν, not wrapped: from -4π to 4π."""
    d = x.shape[1]
    links = x.unbind(1)
    angles = [links[m] + links[n].roll(-1, m - d) - links[m].roll(-1, n - d) - links[n] for m, n in planes(d)]
    return torch.stack(angles, 1)


def plaquette_traces(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, planes, *extents)
    """Re Tr P_{μν}(x) / N for μ < ν; cos θ_P of U(1). Cost V."""
    require_links(field)
    return real_trace(plaquettes(x)) if field.target.shape else plaquette_angles(x).cos()


def plaquette(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """The mean of Re Tr P / N over all plaquettes: 1 where there is no field strength, 0 on average at β = 0."""
    return plaquette_traces(field, x).flatten(1).mean(1)


def wilson_loops(field: FieldSpace, x: Tensor, longest: Sequence[int]) -> Tensor:  # (batch, *event) -> (batch, R, T)
    """Re Tr W(r, t) / N of all r × t rectangles, averaged over positions and the two orders of every plane.

    Entry [:, r - 1, t - 1] is of sides r and t; [:, 0, 0] is the plaquette. Cost V R T d².

    Args:
        field: links of U(1) or SU(N).
        x: the configurations.
        longest: (R, T), the longest sides, shorter than every extent.

    Symmetries: gauge, translations, point group, charge conjugation, centre.
    References: Wilson 1974, Phys. Rev. D 10, 2445.
    """
    n_r, n_t = longest
    _check_sides(field, n_r, n_t)
    d = field.lattice.dimension
    lines = [_lines(field, x, axis, max(n_r, n_t)) for axis in range(d)]
    total = x.new_zeros(len(x), n_r, n_t, dtype=x.dtype.to_real())
    for mu, nu in permutations(range(d), 2):
        for r, t in product(range(1, n_r + 1), range(1, n_t + 1)):
            loop = _rectangle(field, (lines[mu][r - 1], mu, r), (lines[nu][t - 1], nu, t))
            traces = real_trace(loop) if field.target.shape else loop.cos()
            total[:, r - 1, t - 1] += traces.flatten(1).mean(1)
    return total / (d * (d - 1))


def creutz_ratio(
    loops: Tensor, r: int, t: int, log_weights: Samples | None = None, block_length: int = 1
) -> Estimate:  # (n, R, T) -> scalar
    """χ(r, t) = -log [ ⟨W(r,t)⟩ ⟨W(r-1,t-1)⟩ / ⟨W(r,t-1)⟩ ⟨W(r-1,t)⟩ ], the string tension at large r, t; W(0, t) = 1.

    It is -log ⟨Re Tr P / N⟩ for every r, t on the infinite plane. The error is a jackknife's.

    Args:
        loops: of `wilson_loops`.
        r: the first side, from 1.
        t: the second side, from 1.
        log_weights: of weighted samples, or None.
        block_length: configurations per jackknife block, of many autocorrelation times.

    References: Creutz 1980, Phys. Rev. Lett. 45, 313.
    """
    n_r, n_t = loops.shape[1:]
    if not (1 <= r <= n_r and 1 <= t <= n_t):
        raise ValueError(f"expected sides up to {(n_r, n_t)}, got {(r, t)}: measure longer loops")
    corners = [(r, t), (r - 1, t - 1), (r, t - 1), (r - 1, t)]
    values = [loops[:, a - 1, b - 1] if a and b else torch.ones_like(loops[:, 0, 0]) for a, b in corners]
    return jackknife(_minus_log_ratio, *values, log_weights=log_weights, block_length=block_length)


def polyakov_loops(field: FieldSpace, x: Tensor, axis: int = -1) -> Tensor:  # (batch, *event) -> (batch, *transverse)
    """P(y) = Tr Π_t U_axis(y, t) / N, complex, around the torus along one axis: turns with the centre. Cost V.

    Args:
        field: links of U(1) or SU(N).
        x: the configurations.
        axis: the lattice axis that is time, -1 for the last.
    """
    require_links(field)
    d = field.lattice.dimension
    if not -d <= axis < d:
        raise ValueError(f"expected a lattice axis from {-d} to {d - 1}, got {axis}: the batch axis does not count")
    links = x[:, axis % d].movedim(1 + axis % d, 1)
    if not field.target.shape:
        angle = links.sum(1)
        return torch.polar(torch.ones_like(angle), angle)
    loop = reduce(torch.matmul, links.unbind(1))
    return loop.diagonal(dim1=-2, dim2=-1).mean(-1)


def polyakov_correlator(loops: Tensor) -> Tensor:  # (batch, *transverse) -> (batch, *transverse)
    """C(δ) = mean over y of Re P(y)* P(y + δ) for every displacement: decays like e^{-σ L_t |δ|}. Cost V log V."""
    axes = tuple(range(1, loops.ndim))
    power = torch.fft.fftn(loops, dim=axes).abs().square()
    return torch.fft.ifftn(power, dim=axes).real / loops[0].numel()


def _check_sides(field: FieldSpace, *sides: int) -> None:
    require_links(field)
    extents = field.lattice.extents
    if any(type(side) is not int or not 1 <= side < min(extents) for side in sides):
        raise ValueError(f"expected sides from 1 to {min(extents) - 1} on {extents}, got {sides}: loops must not wrap")
    if len(extents) < 2:
        raise ValueError(f"expected two or more axes, got extents {extents}: a line holds no loops")


def _lines(field: FieldSpace, x: Tensor, axis: int, longest: int) -> list[Tensor]:
    """Products of 1, 2, … links along one axis, from every x: longest × (batch, *extents, *target)."""
    compose, lines = require_links(field).compose, [x[:, axis]]
    for r in range(1, longest):
        lines.append(compose(lines[-1], x[:, axis].roll(-r, field.lattice_axes[axis])))
    return lines


def _rectangle(field: FieldSpace, first: tuple[Tensor, int, int], second: tuple[Tensor, int, int]) -> Tensor:
    """Around by way of two lines from x, given with their axes and lengths."""
    group, ((a, mu, r), (b, nu, t)) = require_links(field), (first, second)
    there = group.compose(a, b.roll(-r, field.lattice_axes[mu]))
    back = group.compose(b, a.roll(-t, field.lattice_axes[nu]))
    return group.compose(there, group.inverse(back))


def _minus_log_ratio(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    return -np.log(a * b / (c * d))
