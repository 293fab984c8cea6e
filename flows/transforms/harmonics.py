"""Eigenfunctions of the Laplacian of spheres and tori, and their combinations that are invariant under a group."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import final

import torch
from torch import Tensor, nn

from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import Symmetry

MAX_FUNCTIONS = 5000
Polynomial = dict[tuple[int, ...], float]
"""Coefficients of products of variables, by the sorted indices of the factors: (0, 0, 2) is x_0² x_2."""


class Harmonics(nn.Module, ABC):
    """Real functions f_1 … f_n without the constant, Δf_j = -λ_j f_j, in the order of λ_j.

    They are orthonormal under the uniform distribution, ⟨f_i f_j⟩ = δ_ij, on a whole configuration space: a field x is
    a row of numbers here. Lower degrees come first, so that coefficients carry over to higher degrees.
    """

    eigenvalues: Tensor  # (n,)

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:  # (batch, dim) -> (batch, n)
        """f_j(x)."""

    @abstractmethod
    def forward(self, coefficients: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j c_j ∇f_j and Σ_j c_j Δf_j.  (1 or batch, n), (batch, dim) -> (batch, dim), (batch,)"""

    @abstractmethod
    def stein(self, x: Tensor, score: Tensor) -> Tensor:  # (batch, dim), (batch, dim) -> (batch, n)
        """Δf_j + ⟨s, ∇f_j⟩: of zero mean under the density with the score s."""

    @abstractmethod
    def combine(self, rows: Tensor) -> None:
        """Replace the functions by orthonormal combinations of those of one eigenvalue.  (m, n), float64"""


@final
class SphereHarmonics(Harmonics):
    """The spherical harmonics of degree 1 … l_max on Sᴰ, D ≥ 1, as polynomials in D + 1 components, λ = l(l + D - 1).

        f = h(x_0 … x_{D-1}) C_{l-k}^{(k + D/2 - 1/2)}(x_D),   h harmonic of degree k = 0 … l in one variable less

    made homogeneous with powers of |x|²: on S² those with k = 0 are functions of the latitude, the others have the
    factors Re and Im (x_0 + i x_1)ᵏ. There are 80 up to degree 8 on S², 139 up to degree 6 on S³. x may have any length
    and stands for x/|x|. Cost of an evaluation: the M monomials of degree ≤ l_max, times D + 2.

    Args:
        dimension: D.
        degree: l_max.
    References: Vilenkin (1968), Special Functions and the Theory of Group Representations, IX.3.
    """

    table: Tensor  # (n, D + 2, M): the polynomials of ∂_0 f … ∂_D f, and of f
    parents: Tensor  # (M - 1,): which monomial of the degree below, times which component, every monomial is
    factors: Tensor

    def __init__(self, dimension: int, degree: int) -> None:
        super().__init__()
        n = dimension + 1
        functions = [(f, l) for l in range(1, degree + 1) for f in orthonormal_harmonics(n, l)]
        levels = [list(itertools.combinations_with_replacement(range(n), l)) for l in range(degree + 1)]
        self.sizes = [len(level) for level in levels[1:]]
        within = {word: i for level in levels for i, word in enumerate(level)}
        words = [word for level in levels for word in level]
        self.register_buffer("parents", torch.tensor([within[w[:-1]] for w in words[1:]]), persistent=False)
        self.register_buffer("factors", torch.tensor([w[-1] for w in words[1:]]), persistent=False)
        eigenvalues = torch.tensor([l * (l + dimension - 1) for _, l in functions], dtype=torch.float64)
        self.register_buffer("eigenvalues", eigenvalues, persistent=False)
        self.register_buffer("table", _derivatives([f for f, _ in functions], words), persistent=False)

    def values(self, x: Tensor) -> Tensor:
        return (self.table[:, -1] @ self._monomials(_unit(x))).mT

    def forward(self, coefficients: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        unit = _unit(x)
        gradient = torch.einsum("ej,jam->eam", coefficients, self.table[:, :-1])
        laplacian = -(coefficients * self.eigenvalues) @ self.table[:, -1]
        polynomials = torch.cat([gradient, laplacian[:, None]], 1)
        *slopes, divergence = torch.einsum("eam,me->ae", polynomials, self._monomials(unit))
        return _tangential(unit, torch.stack(slopes, -1)), divergence

    def stein(self, x: Tensor, score: Tensor) -> Tensor:
        unit = _unit(x)
        both = torch.stack(self._slopes(unit, _tangential(unit, score)))
        values, slopes = self.table[:, -1] @ both
        return slopes.mT - self.eigenvalues * values.mT

    def combine(self, rows: Tensor) -> None:
        self.table = torch.einsum("ij,jam->iam", rows, self.table)
        self.eigenvalues = rows.square() @ self.eigenvalues

    def _monomials(self, x: Tensor) -> Tensor:  # (batch, D + 1) -> (M, batch)
        """Every monomial is one of the degree below times a component."""
        variables, levels = x.mT.contiguous(), [x.new_ones(1, len(x))]
        for parents, factors in self._recursion():
            levels.append(levels[-1].index_select(0, parents) * variables.index_select(0, factors))
        return torch.cat(levels)

    def _slopes(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:  # -> (M, batch), (M, batch)
        """The monomials, and their derivatives along s by the product rule."""
        x, s = x.mT.contiguous(), s.mT.contiguous()
        values, slopes = [torch.ones_like(x[:1])], [torch.zeros_like(x[:1])]
        for parents, factors in self._recursion():
            value, slope, factor = values[-1][parents], slopes[-1][parents], x[factors]
            slopes.append(slope * factor + value * s[factors])
            values.append(value * factor)
        return torch.cat(values), torch.cat(slopes)

    def _recursion(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.parents.split(self.sizes), self.factors.split(self.sizes))


@final
class TorusHarmonics(Harmonics):
    """√2 cos(m·t) and √2 sin(m·t) of D angles t, for half the whole vectors with 0 < |m| ≤ degree; λ = |m|².

    |m| is the Euclidean length: the cut is one of eigenvalues, as on spheres. 48 functions up to degree 4 on T².
    Cost of an evaluation: sine and cosine of every m·t.

    Args:
        dimension: D.
        degree: the longest m.
    """

    waves: Tensor  # (w, D)
    combination: Tensor  # (n, 2 w): of the cosine and sine of every wave

    def __init__(self, dimension: int, degree: int) -> None:
        super().__init__()
        half = [m for m in _ball(dimension, degree**2) if m > (0,) * dimension]
        waves = torch.tensor(sorted(half, key=lambda m: (sum(k * k for k in m), m)), dtype=torch.float64)
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("eigenvalues", waves.square().sum(1).repeat_interleave(2), persistent=False)
        self.register_buffer("combination", math.sqrt(2) * torch.eye(2 * len(waves)).to(waves), persistent=False)

    def values(self, x: Tensor) -> Tensor:
        return self._waves(x)[0] @ self.combination.mT

    def forward(self, coefficients: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = self._waves(x)
        along = (slopes * (coefficients @ self.combination)).unflatten(1, (-1, 2)).sum(2)
        laplacian = -(coefficients * self.eigenvalues) @ self.combination
        return along @ self.waves, (values * laplacian).sum(1)

    def stein(self, x: Tensor, score: Tensor) -> Tensor:
        values, slopes = self._waves(x)
        along = (score @ self.waves.mT).repeat_interleave(2, 1)
        slopes, values = torch.stack([slopes * along, values]) @ self.combination.mT
        return slopes - self.eigenvalues * values

    def combine(self, rows: Tensor) -> None:
        combination = rows @ self.combination
        kept = combination.unflatten(1, (-1, 2)).abs().amax((0, 2)) > 1e-12  # the others move nothing
        self.combination, self.waves = combination[:, kept.repeat_interleave(2)], self.waves[kept]
        self.eigenvalues = rows.square() @ self.eigenvalues

    def _waves(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (batch, D) -> (batch, 2 w), (batch, 2 w)
        """cos and sin of every m·t, and their derivatives."""
        phases = x @ self.waves.mT
        c, s = phases.cos(), phases.sin()
        return torch.stack([c, s], -1).flatten(1), torch.stack([-s, c], -1).flatten(1)


def harmonics(field: FieldSpace, degree: int, invariant_under: tuple[Symmetry, ...] = ()) -> Harmonics:
    """Those of one point on a sphere, or of all the angles of a field, that are invariant under some symmetries.

    Args:
        field: angles on the sites of a lattice (D angles: Tᴰ), or one unit vector.
        degree: the highest l, or the longest m.
        invariant_under: claims; combinations that one of their generators changes are left out.
    """
    n = n_harmonics(field, degree)
    if n > MAX_FUNCTIONS:
        raise ValueError(f"expected at most {MAX_FUNCTIONS} functions, got {n} of degree <= {degree}: lower the degree")
    sphere = isinstance(field.target, Sphere)
    found: Harmonics = (SphereHarmonics if sphere else TorusHarmonics)(_dimension(field), degree)
    rows = _invariants(found, field, invariant_under)
    if rows is not None and not len(rows):
        raise ValueError(
            f"expected invariant functions, got 0 of degree <= {degree} under {invariant_under}: raise the degree, or"
            " ask for less symmetry"
        )
    if rows is not None:
        found.combine(rows)
    return found


def n_harmonics(field: FieldSpace, degree: int) -> int:
    """How many functions of degree 1 … `degree` there are."""
    if type(degree) is not int or degree < 1:
        raise ValueError(f"expected a whole degree >= 1, got {degree!r}: 6 is a good start")
    d = _dimension(field)
    if isinstance(field.target, Sphere):
        return math.comb(d + degree, d) + math.comb(d + degree - 1, d) - 1
    by_square = [1] + [0] * degree**2
    for _ in range(d):  # vectors of one more component, by their squared length
        by_square = [
            sum((2 - (k == 0)) * by_square[n - k * k] for k in range(math.isqrt(n) + 1)) for n in range(len(by_square))
        ]
    return sum(by_square) - 1


def _dimension(field: FieldSpace) -> int:
    single = isinstance(field.target, Sphere) and field.lattice.volume == 1
    if field.cells != "sites" or not (isinstance(field.target, Circle) or single):
        raise TypeError(f"expected angles on sites, or a single unit vector, got {field}: use a flow of spins instead")
    return field.target.n if isinstance(field.target, Sphere) else field.lattice.volume


def _ball(dimension: int, square: int) -> list[tuple[int, ...]]:
    """The whole vectors with |m|² ≤ square."""
    if not dimension:
        return [()]
    radius = math.isqrt(square)
    return [(k, *m) for k in range(-radius, radius + 1) for m in _ball(dimension - 1, square - k * k)]


# -------------------------------------------------------------------------------------------------- invariant functions


def _invariants(functions: Harmonics, field: FieldSpace, claims: tuple[Symmetry, ...]) -> Tensor | None:
    """Orthonormal rows that span the combinations with f(g x) = f(x) for all generators; None if that is all of them.

    With f(g x) = R_g f(x) they are the null space of Σ_g (R_g - 1)ᵀ(R_g - 1), which has no entries between eigenvalues.
    """
    generators = [g for claim in claims for g in claim.generators(field)]
    if not generators:
        return None
    n = len(functions.eigenvalues)
    x = _spread(field, 2 * n + 10)
    before = functions.values(x.flatten(1))
    total = torch.zeros(n, n, dtype=torch.float64)
    for g in generators:
        change = torch.linalg.lstsq(before, functions.values(field.act(g, x).flatten(1)) - before).solution
        total += change @ change.mT
    size, vectors = torch.linalg.eigh(total)
    kept = vectors[:, size < 1e-9]
    return None if kept.shape[1] == n else _orthonormal_rows(kept @ kept.mT, kept.shape[1])


def _orthonormal_rows(projector: Tensor, rank: int) -> Tensor:  # (n, n) -> (rank, n)
    """Gram–Schmidt on the columns of a projector in their order: lower degrees first, and always the same."""
    rows = projector.new_zeros(0, len(projector))
    for column in projector.mT:
        rest = column - rows.mT @ (rows @ column)
        if len(rows) < rank and rest.norm() > 1e-6:
            rest = rest / rest.norm()
            rest = rest - rows.mT @ (rows @ rest)
            rows = torch.cat([rows, rest[None] / rest.norm()])
    return rows


def _spread(field: FieldSpace, n: int) -> Tensor:  # -> (n, *event)
    """Points that are spread over the space evenly, the same at every call."""
    from scipy.stats.qmc import Halton

    size = math.prod(field.event_shape)
    cube = torch.from_numpy(Halton(size, scramble=False).random(n + 1)[1:])
    if isinstance(field.target, Circle):
        return (2 * math.pi * cube - math.pi).reshape(n, *field.event_shape)
    return _unit(torch.special.ndtri(cube)).reshape(n, *field.event_shape)


# ---------------------------------------------------------------------------------------------------------- polynomials


@cache
def orthonormal_harmonics(n: int, degree: int) -> tuple[Polynomial, ...]:
    """Homogeneous harmonic polynomials of a degree in n ≥ 2 variables, with ⟨f_i f_j⟩ = δ_ij on the unit sphere."""
    words = list(itertools.combinations_with_replacement(range(n), degree))
    powers = torch.tensor([[w.count(i) for i in range(n)] for w in words], dtype=torch.float64)
    functions = _solid_harmonics(n, degree)
    rows = torch.tensor([[f.get(w, 0.0) for w in words] for f in functions], dtype=torch.float64)
    squares = ((rows @ _moments(powers)) * rows).sum(1)
    return tuple({w: c / math.sqrt(s) for w, c in f.items()} for f, s in zip(functions, squares.tolist()))


def _solid_harmonics(n: int, degree: int) -> list[Polynomial]:
    """Orthogonal, of any length: Re and Im (x_0 + i x_1)ˡ for n = 2, and recursively products for more variables."""
    if n == 2:
        parts: list[Polynomial] = [{}, {}]
        for k in range(degree + 1):
            parts[k % 2][(0,) * (degree - k) + (1,) * k] = float(math.comb(degree, k) * (-1) ** (k // 2))
        return parts if degree else parts[:1]
    lower = [(h, k) for k in range(degree + 1) for h in orthonormal_harmonics(n - 1, k)]
    return [_product(h, _gegenbauer(n, degree - k, k + n / 2 - 1)) for h, k in lower]


def _gegenbauer(n: int, degree: int, order: float) -> Polynomial:
    """|x|ᵐ C_m^{(order)}(x_{n-1}/|x|): m C_m = 2(m + order - 1) x_{n-1} C_{m-1} - (m + 2 order - 2) |x|² C_{m-2}."""
    previous: Polynomial = {}
    current: Polynomial = {(): 1.0}
    for m in range(1, degree + 1):
        first = _product(current, {(n - 1,): 2 * (m + order - 1) / m})
        second = _product(previous, {(i, i): -(m + 2 * order - 2) / m for i in range(n)})
        previous, current = current, {w: first.get(w, 0.0) + second.get(w, 0.0) for w in first | second}
    return current


def _product(f: Polynomial, g: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for (v, a), (w, b) in itertools.product(f.items(), g.items()):
        word = tuple(sorted(v + w))
        result[word] = result.get(word, 0.0) + a * b
    return result


def _moments(powers: Tensor) -> Tensor:  # (m, n) -> (m, m)
    """⟨x^a x^b⟩ on the unit sphere of Rⁿ: Π_i (p_i - 1)!! / n (n + 2) … (n + |p| - 2) where all p = a + b are even."""
    total = powers[:, None] + powers
    n, degree = powers.shape[1], int(total[0, 0].sum())
    odd = torch.tensor([math.prod(range(1, p, 2)) * (1 - p % 2) for p in range(degree + 1)], dtype=powers.dtype)
    return odd[total.long()].prod(-1) / math.prod(range(n, n + degree - 1, 2))


def _derivatives(functions: list[Polynomial], words: list[tuple[int, ...]]) -> Tensor:
    """Coefficients of the words in ∂_0 f … ∂_{n-1} f and f.  -> (n_functions, n + 1, n_words)"""
    place, n = {word: i for i, word in enumerate(words)}, 1 + max(map(max, words[1:]))
    table = torch.zeros(len(functions), n + 1, len(words), dtype=torch.float64)
    for j, f in enumerate(functions):
        for word, c in f.items():
            table[j, n, place[word]] = c
            for i, power in Counter(word).items():
                table[j, i, place[_without(word, i)]] = power * c
    return table


def _without(word: tuple[int, ...], variable: int) -> tuple[int, ...]:
    """The derivative by a variable, without the power in front."""
    place = word.index(variable)
    return word[:place] + word[place + 1 :]


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def _tangential(x: Tensor, v: Tensor) -> Tensor:
    return v - (v * x).sum(-1, keepdim=True) * x
