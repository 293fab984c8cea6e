"""Links in the order of the files that lattice QCD codes exchange, and what is checked of them.

Such files list the sites with x fastest and t slowest, at each site the links U_x, U_y, U_z, U_t, of each link the
rows. Our axes 1, 2, 3, 4 are their x, y, z, t: extents (L_x, L_y, L_z, L_t), time is the last axis.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lattices.files.ensemble import Ensemble
from lattices.loops import plaquettes, real_trace
from symmetries.lie import SUN

UNITARITY = 1e-5
"""How far U U† and det U of a link in a file may be from 1: single precision, with room to spare."""


def site_array(x: Tensor) -> np.ndarray:  # (1, 4, *extents, N, N) -> (V, 4, N, N)
    """The links of one configuration, site by site with x fastest."""
    return x[0].detach().cpu().permute(4, 3, 2, 1, 0, 5, 6).flatten(0, 3).numpy()


def from_site_array(links: np.ndarray, extents: tuple[int, ...]) -> Tensor:  # (V, 4, N, N) -> (1, 4, *extents, N, N)
    """The inverse of `site_array`, in the byte order of this machine."""
    native = torch.from_numpy(links.astype(links.dtype.newbyteorder("=")))
    return native.unflatten(0, extents[::-1]).permute(4, 3, 2, 1, 0, 5, 6)[None].contiguous()


def average_plaquette(x: Tensor) -> float:
    """⟨Re Tr P⟩ / N over all plaquettes, in double precision."""
    return float(real_trace(plaquettes(x.to(torch.complex128))).mean())


def link_trace(x: Tensor) -> float:
    """⟨Re Tr U⟩ / N over all links, in double precision."""
    return float(real_trace(x.to(torch.complex128)).mean())


def require_one(ensemble: Ensemble, purpose: str, n: int | None = None) -> SUN:
    """The group of one configuration of SU(N) links in four dimensions (N as asked); ValueError for anything else."""
    space, group = ensemble.field, getattr(ensemble.field.target, "group", None)
    fits = isinstance(group, SUN) and space.lattice.dimension == 4 and space.cells == "links"
    if not isinstance(group, SUN) or not fits or (n or group.n) != group.n:
        raise ValueError(
            f"expected SU({n or 'N'}) links in 4 dimensions for {purpose}, got {space}: write .npz or .h5 instead"
        )
    if len(ensemble) != 1:
        raise ValueError(f"expected one configuration per {purpose} file, got {len(ensemble)}: write one file for each")
    return group


def require_unitary(x: Tensor, path: Path) -> None:  # (batch, d, *extents, N, N)
    """ValueError unless U U† = 1 and det U = 1 within `UNITARITY` for every link."""
    unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    off = torch.stack([(x @ x.mH - unit).abs().max(), (torch.linalg.det(x) - 1).abs().max()]).max()
    if not off <= UNITARITY:
        raise ValueError(
            f"expected special unitary links within {UNITARITY}, got {float(off):.2g} off in {path}: the data are not "
            "links, or are stored in another order"
        )


def precision_of(x: Tensor, precision: int | None) -> int:
    """Bits per real number in a file: as asked, or as the tensor has."""
    found = precision or (64 if x.dtype == torch.complex128 else 32)
    if found not in (32, 64):
        raise ValueError(f"expected a precision of 32 or 64 bits, got {precision}: choose one of the two")
    return found
