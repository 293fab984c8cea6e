"""CouplingSpace: the named couplings J that the renormalization group moves, and the range that teachers know."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CouplingSpace:
    """A box of couplings lower ≤ J ≤ upper with names, as learned and as proposed.

        u = (J - centre) / scale,   centre = (lower + upper) / 2,   scale = (upper - lower) / 2,   u in [-1, 1]ⁿ

    Args:
        names: of the couplings that are even under the field's reflection; teachers are conditioned on them.
        lower, upper: the ends of the range of each.
        odd: names of couplings that break the symmetry (a field), for the record: y_h is read off the response to a
            source of the field at zero, so that teachers stay symmetric.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    odd: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names or not len(self.names) == len(self.lower) == len(self.upper):
            raise ValueError(f"expected as many bounds as names, got {self}: give lower and upper for each coupling")
        if len({*self.names, *self.odd}) < len(self.names) + len(self.odd):
            raise ValueError(f"expected different names, got {self.names} and {self.odd}: name each coupling once")
        for name, low, high in zip(self.names, self.lower, self.upper):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"expected lower < upper for {name}, got {low} and {high}: exchange or widen them")

    @property
    def centre(self) -> Tensor:  # -> (n,)
        return (torch.tensor(self.lower, dtype=torch.float64) + torch.tensor(self.upper, dtype=torch.float64)) / 2

    @property
    def scale(self) -> Tensor:  # -> (n,)
        return (torch.tensor(self.upper, dtype=torch.float64) - torch.tensor(self.lower, dtype=torch.float64)) / 2

    def unit(self, couplings: Tensor) -> Tensor:  # (..., n) -> (..., n)
        """u in [-1, 1]ⁿ of couplings in the range."""
        return (couplings - self.centre.to(couplings)) / self.scale.to(couplings)

    def contains(self, couplings: Tensor, tolerance: float = 1e-6) -> Tensor:  # (..., n) -> (...,) bool
        """Whether couplings lie in the range."""
        return (self.unit(couplings).abs() <= 1 + tolerance).all(-1) & couplings.isfinite().all(-1)

    def require(self, couplings: Tensor) -> Tensor:
        """Return couplings that all lie in the range; a ValueError names the first that does not."""
        if couplings.shape[-1:] != (len(self.names),):
            raise ValueError(f"expected couplings {self.names}, got shape {tuple(couplings.shape)}: one column each")
        outside = couplings.reshape(-1, len(self.names))[~self.contains(couplings).reshape(-1)]
        if len(outside):
            got = ", ".join(f"{name}={value:.6g}" for name, value in zip(self.names, outside[0].tolist()))
            bounds = ", ".join(f"{n} in [{a:g}, {b:g}]" for n, a, b in zip(self.names, self.lower, self.upper))
            raise ValueError(f"expected couplings in the trained region, {bounds}, got {got}: train a wider teacher")
        return couplings

    def sample(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, n_couplings)
        """Couplings spread evenly over the box: uniform, with antithetic halves so that means are sharp."""
        half = torch.rand(n - n // 2, len(self.names), generator=generator, dtype=torch.float64) * 2 - 1
        unit = torch.cat([half, -half[: n // 2]])
        return self.centre + self.scale * unit
