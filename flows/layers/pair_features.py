"""Potentials of two plaquettes that share a link: the loops of second order in the strong-coupling expansion."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from flows.layers.plaquette_features import through_coordinates
from lattices.fields import FieldSpace
from lattices.loops import shifted


def n_pairs(dimension: int) -> int:
    """How many potentials there are: two kinds of pairs of plaquettes, coplanar and (in d >= 3) bent, times R and T."""
    return 2 if dimension == 2 else 4


def pair_gradient(field: FieldSpace, u: Tensor, loops: Tensor, coefficients: Tensor) -> Tensor:
    """∇ Σ_kinds (c_R R + c_T T) in coordinates, for all links.  -> (batch, d, *extents, dim)

        R = Σ Re Tr(Q Q'†) / N,    T = Σ Re Tr(Q Q') / N

    over all links and pairs of plaquettes Q, Q' that start along the link: R is a 1 × 2 rectangle or a chair, T goes
    through the shared link twice. Both are linear in Q when the rest X is kept, so that one pass around the plaquettes
    serves all of them. Cost V (d-1)(2d-3) d · 14 matrix products.

    Args:
        loops: the plaquettes through each link, (batch, d, 2(d-1), *extents, N, N).
        coefficients: c_R, c_T of coplanar, then of bent pairs: (1 or batch, n_pairs).
    """
    d, n = u.shape[1], u.shape[-1]
    total = [torch.zeros_like(u[:, 0]) for _ in range(d)]
    for mu in range(d):
        for i, j in combinations(range(2 * (d - 1)), 2):
            c_r, c_t = (_scalar(coefficients[:, 2 * _bent(i, j) + k], u.ndim - 1) for k in (0, 1))
            for own, other in ((i, j), (j, i)):
                q, rest = loops[:, mu, own], loops[:, mu, other]
                x = c_t * rest + c_r * rest.mH
                _add_plaquette(total, u, (mu, own), q @ x, x @ q)
    return through_coordinates(field, torch.stack(total, 1)) / n


def pair_laplacians(loops: Tensor) -> Tensor:  # -> (batch, n_pairs)
    """Σ_l ∇_l² of every potential: -6 C_F R, and -8 C_F T + T/N - N Σ Re(x x'), x = Tr Q / N."""
    d, n = loops.shape[1], loops.shape[-1]
    casimir = (n * n - 1) / (2 * n)
    found = [loops.real.new_zeros(len(loops)) for _ in range(n_pairs(d))]
    for mu in range(d):
        for i, j in combinations(range(2 * (d - 1)), 2):
            q, rest, kind = loops[:, mu, i], loops[:, mu, j], 2 * _bent(i, j)
            r, t = _pairing(q, rest.mH) / n, _pairing(q, rest) / n
            product = (_trace(q) * _trace(rest)).real.flatten(1).sum(1) / n
            found[kind] = found[kind] - 6 * casimir * r
            found[kind + 1] = found[kind + 1] - (8 * casimir - 1 / n) * t - product
    return torch.stack(found, 1)


def _add_plaquette(total: list[Tensor], u: Tensor, where: tuple[int, int], before: Tensor, after: Tensor) -> None:
    """Add the derivatives of Re Tr(Q X) by the four links of Q: before = Q X and after = X Q, carried along Q.

    Q starts along (x, μ) and closes above, by way of x + ν̂ (even numbers of passages), or below.
    """
    (mu, number), d = where, u.shape[1]
    nu = [axis for axis in range(d) if axis != mu][number // 2]
    ahead = u[:, mu].mH @ before @ u[:, mu]  # at x + μ̂
    total[mu] += before
    if number % 2 == 0:
        total[nu] += shifted(ahead, mu, -1, d) - after
        total[mu] -= shifted(u[:, nu].mH @ after @ u[:, nu], nu, -1, d)
        return
    below = shifted(u[:, nu], nu, -1, d)  # U_ν(x - ν̂)
    corner = shifted(below, mu, 1, d)
    far = shifted(corner @ ahead @ corner.mH, nu, 1, d)
    total[nu] -= shifted(far, mu, -1, d)
    near = shifted(below @ after @ below.mH, nu, 1, d)
    total[mu] -= near
    total[nu] += near


def _bent(i: int, j: int) -> int:
    """Whether passages i < j lie in different planes."""
    return int(i // 2 != j // 2)


def _pairing(a: Tensor, b: Tensor) -> Tensor:  # -> (batch,)
    """Σ_x Re Tr(a b)."""
    return (a * b.mT).real.flatten(1).sum(1)


def _trace(m: Tensor) -> Tensor:
    return m.diagonal(dim1=-2, dim2=-1).sum(-1)


def _scalar(c: Tensor, ndim: int) -> Tensor:
    return c.reshape(-1, *[1] * (ndim - 1))
