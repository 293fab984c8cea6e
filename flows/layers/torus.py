"""Layers of flows on a torus T^D: angles are moved by circular maps, given other angles."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from flows.bijection import Bijection, Scored
from flows.conditioners.torus_networks import Levels, TorusNetwork, TorusSpec
from flows.transforms.circular import CircularSpline
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.circular_mobius import Mobius
from flows.transforms.elementwise import ElementwiseTransform
from lattices.fields import Circle, FieldSpace
from lattices.invariance import SignFlip, Symmetry
from lattices.lattice import Lattice
from lattices.spins import AngleShifts


def torus(dimension: int) -> FieldSpace:
    """The torus T^D: one angle on each of D sites, event (D,)."""
    return FieldSpace(Lattice((dimension,)), Circle())


def require_torus(field: FieldSpace) -> int:
    """The dimension D of a torus; TypeError for other spaces."""
    if field.cells != "sites" or field.target != Circle() or field.lattice.dimension != 1:
        raise TypeError(f"expected a torus, angles on the sites of a line, got {field}: use torus(dimension)")
    return field.lattice.volume


class TriangularTorusLayer(Bijection):
    """x_i = T(z_i; p_i(z_j of lower levels)): triangular in the order of levels, the identity at the start.

    Angles that are seen but not moved are frozen; those without a level take no part, and shifting them is a symmetry.
    The forward map is one pass through the network, the inverse one pass for each level that moves, and the score
    one forward and as many backward passes, see `push_score`.
    """

    moved: Tensor

    def __init__(
        self,
        field: FieldSpace,
        sweeps: Sequence[Sequence[int]],
        frozen: Sequence[int],
        transform: ElementwiseTransform | None,
        spec: TorusSpec | None,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        dimension = require_torus(field)
        self.domain = self.codomain = field
        self.transform = transform or CircularMixture()
        if not isinstance(self.transform, CircularMixture | CircularSpline | Mobius):
            raise TypeError(f"expected a map of the circle, got {self.transform}: use CircularMixture(), say")
        levels = _levels(dimension, frozen, sweeps)
        moved = [angle for sweep in sweeps for angle in sweep]
        self.network = TorusNetwork(levels, moved, self.transform.parity, spec, dtype)
        idle = [i for i, level in enumerate(levels) if level is None]
        self.symmetries: tuple[Symmetry, ...] = tuple(AngleShifts(_unit(i, dimension)) for i in idle)
        self.symmetries += (SignFlip(),) * self.network.spec.odd
        self.register_buffer("moved", torch.tensor(moved), persistent=False)
        ends = accumulate(len(sweep) for sweep in sweeps)
        self.rows = [slice(end - len(sweep), end) for sweep, end in zip(sweeps, ends)]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.transform.forward(z.index_select(1, self.moved), self.network(z, context))
        return z.index_copy(1, self.moved, x), log_slope.sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = x, x.new_zeros(len(x))
        for rows, angles in self._sweeps():
            parameters = self.network(z, context)[:, rows]
            back, log_slope = self.transform.inverse(x.index_select(1, angles), parameters)
            z, log_det = z.index_copy(1, angles, back), log_det + log_slope.sum(1)
        return z, log_det

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Solve Jᵀ s' = s - ∇log|det| by substitution, from the highest level down: no inverse is needed.

        s'_i = (s_i - ∂_i [log|det| + Σ_{j above i} s'_j x_j]) / T'_i
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x, log_slope = self.transform.forward(z.index_select(1, self.moved), self.network(z, context))
            total, pushed = log_slope.sum(), score
            for rows, angles in reversed(self._sweeps()):
                (pull,) = torch.autograd.grad(total, z, retain_graph=True)
                solved = ((score - pull).index_select(1, angles) * torch.exp(-log_slope[:, rows])).detach()
                pushed, total = pushed.index_copy(1, angles, solved), total + (solved * x[:, rows]).sum()
            (pull,) = torch.autograd.grad(total, z)
        pushed = (score - pull).index_copy(1, self.moved, pushed.index_select(1, self.moved))
        return Scored(z.detach().index_copy(1, self.moved, x.detach()), log_slope.detach().sum(1), pushed)

    def _sweeps(self) -> list[tuple[slice, Tensor]]:
        """For each level that moves, its rows among the moved angles, and the angles."""
        return [(rows, self.moved[rows]) for rows in self.rows]

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[TriangularTorusLayer]:
        """Small instances."""


@final
class TorusCoupling(TriangularTorusLayer):
    """Move some angles of a torus, given others that stay: both directions are one pass through the network.

        x_A = T(z_A; p(z_B)),  x_B = z_B,  log|det| = Σ_A log T'

    Args:
        field: a torus, `torus(dimension)`, D >= 2.
        frozen: the angles B.
        active: the angles A; angles in neither take no part.
        transform: a map of the circle, `CircularMixture` (default), `CircularSpline` or `Mobius`.
        spec: the network p.
        dtype: of the weights.

    Symmetries: shifts of the angles that take no part; t ↦ -t where `spec` asks for it.
    References: Rezende et al. (2020), 2002.02428, section 3.
    """

    def __init__(
        self,
        field: FieldSpace,
        frozen: Sequence[int],
        active: Sequence[int],
        transform: ElementwiseTransform | None = None,
        spec: TorusSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if not frozen or not active:
            raise ValueError(
                f"expected frozen and active angles, got {tuple(frozen)} and {tuple(active)}: a coupling needs two "
                "angles, use TorusAutoregressive for one"
            )
        super().__init__(field, [active], frozen, transform, spec, dtype)

    @classmethod
    def examples(cls) -> Iterator[TorusCoupling]:
        """Every transform, with and without hidden layers, context, reflection and idle angles."""
        yield cls(torus(2), (0,), (1,), Mobius(), TorusSpec(1))
        yield cls(torus(4), (0, 2), (3, 1), CircularSpline(3), TorusSpec(1, (4, 3), n_context=2))
        yield cls(torus(3), (2,), (0,), CircularMixture(2), TorusSpec(1, (3,), odd=True))


@final
class TorusAutoregressive(TriangularTorusLayer):
    """Move the angles of a torus one after the other, each given those before it; D = 1 is a plain map of the circle.

        x_i = T(z_i; p_i(z_1 … z_{i-1})),  log|det| = Σ_i log T'

    Sampling is one pass through the network, the inverse D passes; `Inverse` of the layer exchanges the two.

    Args:
        field: a torus, `torus(dimension)`.
        order: the angles in the order in which they are moved, all by default; others take no part.
        transform: a map of the circle, `CircularMixture` (default), `CircularSpline` or `Mobius`.
        spec: the network p.
        dtype: of the weights.

    Symmetries: shifts of the angles that take no part; t ↦ -t where `spec` asks for it.
    References: Rezende et al. (2020), 2002.02428, section 3; Kingma et al. (2016), 1606.04934, section 3.
    """

    def __init__(
        self,
        field: FieldSpace,
        order: Sequence[int] | None = None,
        transform: ElementwiseTransform | None = None,
        spec: TorusSpec | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        order = range(require_torus(field)) if order is None else order
        super().__init__(field, [[angle] for angle in order], (), transform, spec, dtype)

    @classmethod
    def examples(cls) -> Iterator[TorusAutoregressive]:
        """Every transform on T¹ to T⁴, with and without hidden layers, context, reflection and idle angles."""
        yield cls(torus(1), None, CircularMixture(3))
        yield cls(torus(1), None, Mobius(), TorusSpec(1, (2,), n_context=1))
        yield cls(torus(2), (1, 0), CircularMixture(2))
        yield cls(torus(3), (0, 2), CircularSpline(3), TorusSpec(1, (3,), odd=True))
        yield cls(torus(4), (3, 1, 0, 2), Mobius(), TorusSpec(1, (6, 4), n_context=2))


def _levels(dimension: int, frozen: Sequence[int], sweeps: Sequence[Sequence[int]]) -> Levels:
    """0 for the frozen angles, then 1, 2, … for those that are moved; None for the rest."""
    given = [*frozen, *(angle for sweep in sweeps for angle in sweep)]
    if len(set(given)) != len(given) or not given or not set(given) <= set(range(dimension)):
        raise ValueError(f"expected different angles out of 0…{dimension - 1}, got {given}: name each at most once")
    found = {angle: level for level, sweep in enumerate([frozen, *sweeps]) for angle in sweep}
    return tuple(found.get(angle) for angle in range(dimension))


def _unit(axis: int, dimension: int) -> tuple[int, ...]:
    return tuple(int(i == axis) for i in range(dimension))
