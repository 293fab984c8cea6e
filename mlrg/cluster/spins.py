"""G-spins: a finite group as the values of a spin, and its class functions as pair energies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from symmetries.finite import Cyclic, Symmetric
from symmetries.group import FiniteGroup

GROUPS: dict[str, FiniteGroup] = {"S2": Symmetric(2), "Z2": Cyclic(2), "Z3": Cyclic(3), "S3": Symmetric(3)}


@dataclass(frozen=True)
class Spins:
    """A spin with values in a finite group, and the pair weights that do not change under g, h → u g, u h.

        κ_k(g, h) = |C_k|/|G| - [g⁻¹h ∈ C_k],    one k for each nontrivial class C_k (merged with its inverses)

    For S2: κ = ½ s s'; for Z3: the Potts weight δ(g, h) - 1/3; for S3 two weights. A coupling J multiplies κ in
    the exponent, so J = 2K for Ising and J = K for Potts.

    Args:
        name: "S2" (or "Z2"), "Z3", "S3".
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in GROUPS:
            raise ValueError(f"expected a group of {', '.join(GROUPS)}, got {self.name!r}: choose one of them")

    @property
    def group(self) -> FiniteGroup:
        """The group itself."""
        return GROUPS[self.name]

    @property
    def n_values(self) -> int:
        """The number q = |G| of values."""
        return self.group.order

    @property
    def has_sign(self) -> bool:
        """Whether a relabelling of the values turns κ into -κ (only for two values)."""
        return self.n_values == 2

    @cached_property
    def kernel(self) -> Tensor:
        """κ (classes, q, q)."""
        group, g = self.group, self.group.elements
        ratio = group.index(group.compose(group.inverse(g)[:, None], g[None]))
        members = torch.stack([(ratio[..., None] == c).any(-1) for c in self._classes()])
        return members.double().mean((1, 2), keepdim=True) - members.double()

    def _classes(self) -> list[Tensor]:
        """Positions of the elements u g^±1 u⁻¹ of each nontrivial class."""
        group, u = self.group, self.group.elements
        classes: list[Tensor] = []
        for position, g in enumerate(u[1:], start=1):
            if not any(position in c for c in classes):
                pair = group.compose(u[:, None], torch.stack([g, group.inverse(g)]))
                orbit = group.compose(pair, group.inverse(u)[:, None])
                classes.append(group.index(orbit).unique())
        return classes

    @classmethod
    def examples(cls) -> Iterator[Spins]:
        """Every group that is known."""
        yield from map(cls, GROUPS)
