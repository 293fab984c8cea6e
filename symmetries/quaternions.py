"""Unit quaternions and SU(2): the group is the sphere S³, and its Haar measure the area divided by 2π²."""

from __future__ import annotations

import torch
from torch import Tensor


def su2_from_quaternion(a: Tensor) -> Tensor:  # (..., 4) -> (..., 2, 2)
    """U = a_0 + i (a_1 σ_1 + a_2 σ_2 + a_3 σ_3), in SU(2) where |a| = 1.

    An isometry up to the factor 2 that the metric -2 Tr of the algebra has: exp(θ T_a) turns a by θ/2.
    """
    a0, a1, a2, a3 = a.unbind(-1)
    first, second = torch.complex(a0, a3), torch.complex(a2, a1)
    return torch.stack([torch.stack([first, second], -1), torch.stack([-second.conj(), first.conj()], -1)], -2)


def quaternion_from_su2(u: Tensor) -> Tensor:  # (..., 2, 2) -> (..., 4)
    """The unit quaternion of U: a_0 = ½ Tr U. It reads the first row, which holds all that SU(2) has."""
    first, second = u[..., 0, 0], u[..., 0, 1]
    return torch.stack([first.real, second.imag, second.real, first.imag], -1)
