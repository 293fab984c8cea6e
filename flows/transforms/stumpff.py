"""Stumpff functions: the entire functions of the squared angle that geodesics of spheres are made of."""

from __future__ import annotations

import torch
from torch import Tensor

N_TERMS = 16


def stumpff(s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # (...) -> four times (...)
    """C_m(s) = Σ_k (-s)^k / (2k + m)! for m = 0 … 3, by their series: smooth at s = 0 to every order.

        C_0 = cos r,  C_1 = sin r / r,  C_2 = (1 - cos r)/r²,  C_3 = (r - sin r)/r³,  s = r²

    Exact to rounding for 0 ≤ r ≤ π, all that a sphere needs. They replace quotients by r, whose derivatives are not
    defined at r = 0. Horner's scheme for C_2 and C_3; C_0 = 1 - s C_2 and C_1 = 1 - s C_3.
    """
    m = torch.arange(2, 4, dtype=s.dtype, device=s.device)
    x = -s.unsqueeze(-1)
    total = torch.ones_like(x)
    for k in range(N_TERMS, 0, -1):
        total = torch.addcmul(torch.ones_like(m), x / ((2 * k + m) * (2 * k + m - 1)), total)
    c2, c3 = (total / torch.tensor([2.0, 6.0], dtype=s.dtype, device=s.device)).unbind(-1)
    return 1 - s * c2, 1 - s * c3, c2, c3
