"""The one bond energy of the model: couplings allowed by the point group, and its freedom of names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product

import torch
from torch import Tensor

from mlrg.cluster.spins import Spins
from symmetries.finite import Hyperoctahedral, Symmetric
from symmetries.irreps import irreps
from symmetries.representation import Representation

SQUARE = Hyperoctahedral(2)
IRREPS = irreps(SQUARE)
QUARTER_TURN = torch.tensor([[0, -1], [1, 0]])


@dataclass(frozen=True)
class Bond:
    """The energy of a bond between the spins of an edge and those of a vertex, d on either site.

        -E = Σ_{c,k} J_ck Σ_ab B^c_ab(r) κ_k(s_a, s'_b),    B(r) = R^r B R^{-r}

    a counts the spins of the edge, b those of the vertex, r the four directions from edge to vertex. The B^c are
    an orthonormal basis of what the reflection that keeps the bond leaves alone in D ⊗ D, where D is the on-site
    representation of the point group D4. Couplings are ordered with the class k fastest; the first is A1-A1.
    For S2 the signs of D relabel spins, so D4 is a symmetry; for other groups they act on the couplings only.

    Args:
        spins: the values a spin can take.
        representation: a sum of irreps of D4, as "A1", "A1+E", "2A1+E", "B1+E".
    """

    spins: Spins
    representation: str = "A1"

    def __post_init__(self) -> None:
        self.fusion, self.spins.kernel  # noqa: B018  (built now: a cache filled inside a derivative would keep its dual)

    @cached_property
    def irreps(self) -> tuple[str, ...]:
        """The names of the irreps, repeated as often as they occur."""
        found: list[str] = []
        for term in self.representation.replace(" ", "").replace("⊕", "+").split("+"):
            match = re.fullmatch(r"([1-9]?)(A1|A2|B1|B2|E)", term)
            if match is None:
                raise ValueError(
                    f"expected a sum of A1, A2, B1, B2, E, got {self.representation!r}: write it as '2A1+E'"
                )
            found += [match[2]] * int(match[1] or 1)
        return tuple(found)

    @property
    def on_site(self) -> Representation:
        """The representation D of D4 on the d spins of a site."""
        return reduce(lambda left, right: left + right, (IRREPS[name] for name in self.irreps))

    @cached_property
    def fusion(self) -> Tensor:
        """The invariants B^c(r): (n_fusions, 4, d, d)."""
        d = self.on_site.dim
        stabiliser = torch.stack([g for g in SQUARE.elements if g[0, 0] == 1])
        reference = _column_basis((self.on_site * self.on_site).matrix(stabiliser).mean(0)).reshape(-1, d, d)
        turn = self.on_site.matrix(QUARTER_TURN)
        turns = [torch.linalg.matrix_power(turn, r) for r in range(4)]
        return torch.stack([R @ reference @ R.mT for R in turns], 1)

    @property
    def n_couplings(self) -> int:
        """The number n of couplings: fusions × classes."""
        return len(self.fusion) * len(self.spins.kernel)

    def matrices(self, J: Tensor) -> Tensor:  # (..., n) -> (..., classes, 4, d, d)
        """The coupling matrices Σ_c J_ck B^c(r) of the four directions."""
        self._check(J)
        coefficients = J.unflatten(-1, (len(self.fusion), -1))
        return torch.einsum("...ck,crab->...krab", coefficients, self.fusion.to(J))

    def relabellings(self) -> Tensor:  # -> (n_relabellings, d, d), the identity first
        """The new names of the spins of a site that commute with D4: equal irreps change places, and for two
        values signs. They are the freedom of a hidden site: a student does not notice them."""
        blocks = []
        for name in dict.fromkeys(self.irreps):
            m = self.irreps.count(name)
            signed = Hyperoctahedral(m).elements if self.spins.has_sign else _permutation_matrices(m)
            identity = torch.eye(IRREPS[name].dim)
            mats = sorted((torch.kron(s.float(), identity) for s in signed), key=lambda u: -u.trace().item())
            blocks.append(mats)
        order = [i for name in dict.fromkeys(self.irreps) for i in self._positions(name)]
        stacked = torch.stack([torch.block_diag(*choice).double() for choice in product(*blocks)])
        return stacked[:, torch.tensor(order).argsort()][:, :, torch.tensor(order).argsort()]

    def relabel(self, J: Tensor, edge: Tensor, vertex: Tensor) -> Tensor:  # (..., n) -> (..., n)
        """The couplings after new names on edges and on vertices: B-coefficients of U J Vᵀ."""
        turned = edge.to(J) @ self.matrices(J)[..., 0, :, :] @ vertex.to(J).mT
        return torch.einsum("...kab,cab->...ck", turned, self.fusion[:, 0].to(J)).flatten(-2)

    def _positions(self, name: str) -> list[int]:
        dims = [IRREPS[irrep].dim for irrep in self.irreps]
        starts = [sum(dims[:i]) for i in range(len(dims))]
        return [s + i for s, irrep, dim in zip(starts, self.irreps, dims) for i in range(dim) if irrep == name]

    def _check(self, J: Tensor) -> None:
        if J.ndim < 1 or J.shape[-1] != self.n_couplings:
            raise ValueError(
                f"expected couplings (..., {self.n_couplings}) for {self.representation} of {self.spins.name}, "
                f"got {tuple(J.shape)}: one per fusion and class"
            )

    @classmethod
    def examples(cls) -> Iterator[Bond]:
        """The published representations of S2, and the smallest of Z3 and S3."""
        yield from (cls(Spins("S2"), name) for name in ("A1", "A1+E", "2A1+E"))
        yield from (cls(Spins(group)) for group in ("Z3", "S3"))


def _column_basis(projector: Tensor) -> Tensor:  # (n, n) -> (rank, n)
    """An orthonormal basis of the image from its first independent columns; the rank is the trace, rounded."""
    basis: list[Tensor] = []
    for column in projector.mT:
        rest = column - sum((b * (b @ column) for b in basis), torch.zeros_like(column))
        if rest.norm() > 1e-6 and len(basis) < round(projector.trace().item()):
            basis.append(rest / rest.norm())
    return torch.stack(basis)


def _permutation_matrices(m: int) -> Tensor:
    return torch.eye(m)[Symmetric(m).elements]
