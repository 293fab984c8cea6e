"""Coupling of spins: those of one colour are moved along mean fields of the others, and the global O(n) is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flows.bijection import Bijection, Scored
from flows.conditioners.vector_convolutions import VectorConvolutions, VectorSpec
from flows.transforms.circular import wrap
from flows.transforms.mobius import into_ball, mobius
from flows.transforms.spline import interpolate
from lattices.fields import Circle, FieldSpace, Sphere, Target
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import GlobalRotations, require_spins, turned, unit_vectors

PARTITIONS = ("checkerboard", "corners")


def colatitude_spline(
    s: Tensor, axis: Tensor, parameters: Tensor, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (..., n), (..., n), (..., 3 n_bins + 1) -> (..., n), (...)
    """Slide unit vectors along the meridians of an axis a: the angle from it is bent by a spline, the azimuth stays.

        s = cos α â + sin α e  ↦  cos α' â + sin α' e,    α' = f(α),
        log|det| = log f'(α) + (n - 2) log(sin α' / sin α)

    with f a rational-quadratic spline of [0, π] whose parameters are multiplied by a²/(1 + a²): the map tends to the
    identity at a = 0, where there is no axis, and is C¹ there and at both poles. Points closer than √eps to a pole
    are treated as if they were that far, which changes log|det| by as little. Cost O(n_bins).

    Args:
        s: unit vectors, n ≥ 2.
        axis: a, of any length.
        parameters: logits of widths and heights of n_bins bins each, and log-slopes at n_bins + 1 knots.
        inverse: apply the inverse map.

    Symmetries: f(R s; R a) = R f(s; a) for every R in O(n).
    References: Rezende et al. (2020), 2002.02428, section 2.2.
    """
    direction, strength = _direction(axis)
    along = (s * direction).sum(-1)
    rest = s - along.unsqueeze(-1) * direction
    across = rest.square().sum(-1).clamp(min=torch.finfo(s.dtype).eps).sqrt()
    n_bins = parameters.shape[-1] // 3
    bins, slopes = (strength.unsqueeze(-1) * parameters).split((2 * n_bins, n_bins + 1), -1)
    bent, log_slope = interpolate(torch.atan2(across, along), bins, slopes, (0.0, math.pi), inverse)
    stretch = bent.sin() / across
    moved = bent.cos().unsqueeze(-1) * direction + stretch.unsqueeze(-1) * rest
    return moved, log_slope + (s.shape[-1] - 2) * stretch.log()


def _direction(axis: Tensor) -> tuple[Tensor, Tensor]:  # (..., n) -> (..., n), (...)
    """â and a²/(1 + a²); any direction and 0 where a² is below rounding."""
    square = axis.square().sum(-1)
    absent = square <= torch.finfo(axis.dtype).eps
    pole = torch.eye(axis.shape[-1], dtype=axis.dtype, device=axis.device)[0]
    safe = torch.where(absent.unsqueeze(-1), pole, axis)
    return safe / safe.square().sum(-1, keepdim=True).sqrt(), (square / (1 + square)).masked_fill(absent, 0.0)


@final
@dataclass(frozen=True)
class AxialMap:
    """`n_rounds` times a Möbius map towards a vector, then a `colatitude_spline` about another one.

        s ↦ g(h_{-w}(s); a, p),    w = into_ball(v)

    p = 0 and v = 0 give the identity. Möbius maps are smooth where v vanishes; in a row along one vector they would
    be a single one again, so that the splines add what they cannot do.

    Args:
        n_bins: of the splines; 0 leaves them out.
        n_rounds: how often.
    """

    n_bins: int = 8
    n_rounds: int = 1

    def __post_init__(self) -> None:
        if self.n_bins < 0 or self.n_bins == 1 or self.n_rounds < 1:
            raise ValueError(f"expected n_bins >= 2 or 0, and n_rounds >= 1, got {self}: try AxialMap(8)")

    @property
    def n_numbers(self) -> int:
        """Invariant parameters of a spin: p of each round."""
        return self.n_rounds * (3 * self.n_bins + 1) if self.n_bins else 0

    @property
    def n_vectors(self) -> int:
        """Vectors of a spin: all v, then all a."""
        return self.n_rounds * (2 if self.n_bins else 1)

    def forward(self, s: Tensor, numbers: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., n), (..., n_numbers), (..., n_vectors, n) -> (..., n), (...): the spins moved, log-det of each."""
        log_det = torch.zeros_like(s[..., 0])
        for push, axis, bend in self._rounds(numbers, vectors):
            s, step = mobius(s, -push)
            log_det = log_det + step
            if self.n_bins:
                s, step = colatitude_spline(s, axis, bend)
                log_det = log_det + step
        return s, log_det

    def inverse(self, s: Tensor, numbers: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The map back, with its own log-det; same shapes and cost."""
        log_det = torch.zeros_like(s[..., 0])
        for push, axis, bend in reversed(self._rounds(numbers, vectors)):
            if self.n_bins:
                s, step = colatitude_spline(s, axis, bend, inverse=True)
                log_det = log_det + step
            s, step = mobius(s, push)
            log_det = log_det + step
        return s, log_det

    def _rounds(self, numbers: Tensor, vectors: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """w, a and p of each round."""
        pushes = into_ball(vectors[..., : self.n_rounds, :]).unbind(-2)
        axes = vectors[..., self.n_vectors - self.n_rounds :, :].unbind(-2)
        return list(zip(pushes, axes, numbers.tensor_split(self.n_rounds, -1)))


@final
class SpinCoupling(Bijection):
    """Move the spins of one colour along fields of all other spins, which are frozen; the identity at the start.

        x_A = T(z_A; p, v, m + a),  x_B = z_B,    m = Σ_{y~x} z_y

    T is an `AxialMap`; invariant numbers p and vectors v, a come from `VectorConvolutions` of z_B, and the mean field m
    of the neighbours says where the axes point before training. Angles are moved as vectors of the plane. No two
    neighbours have one colour. Given the frozen half, a checkerboard moves the spins of a plaquette independently of
    each other, and leaves the four-spin correlations of plaquettes behind; corners move them one after the other.

    Args:
        field: circles or spheres on sites, even extents.
        transform: the map T.
        spec: the network.
        colour: of the moving sites: of a "checkerboard" x_1 + … + x_d modulo 2; of "corners" the number 0 … d of odd
            coordinates.
        partition: "checkerboard" or "corners".
        dtype: of the weights, to be that of the fields.

    Symmetries: translations that keep the colours, point group, global O(n).
    """

    sites: Tensor  # the active ones
    neighbours: Tensor  # (n_sites, 2d)

    def __init__(
        self,
        field: FieldSpace,
        transform: AxialMap | None = None,
        spec: VectorSpec | None = None,
        colour: int = 0,
        partition: str = "checkerboard",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        require_spins(field)
        self.domain = self.codomain = field
        self.transform, self.colour, self.partition = transform or AxialMap(), colour, partition
        n_numbers, n_vectors = self.transform.n_numbers, self.transform.n_vectors
        self.conditioner = VectorConvolutions(field.lattice, n_numbers, n_vectors, spec, dtype)
        sites = (_colours(field.lattice, partition) == colour).nonzero().flatten()
        if not len(sites):
            raise ValueError(f"expected a colour of {partition!r}, from 0, got {colour!r}: alternate them")
        self.register_buffer("sites", sites, persistent=False)
        self.register_buffer("neighbours", field.lattice.neighbours()[sites], persistent=False)
        moves = Translations(parity=True) if partition == "checkerboard" else Translations(step=2)
        self.symmetries: tuple[Symmetry, ...] = (moves, PointGroup(), GlobalRotations())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = unit_vectors(self.domain, z)
        return self._merge(z, *self.transform.forward(self._half(s), *self._steered(s, context)))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = unit_vectors(self.domain, x)
        return self._merge(x, *self.transform.inverse(self._half(s), *self._steered(s, context)))

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score through the triangular Jacobian; one pass through the network and back.

        s'_A = ∇_A [s_A · T⁻¹(x_A) + log|det ∂T⁻¹|] with parameters fixed,   s'_B = s_B - ∂_B [log|det| + s'_A · x_A]
        """
        field = self.domain
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            s = unit_vectors(field, z)
            parameters = self._steered(s, context)
            half = self._half(s).detach()
            moved, log_det = self.transform.forward(half, *parameters)
            x, total = self._merge(z.detach(), moved.detach(), log_det.detach())
            y = self._half(x).requires_grad_()
            back, back_log_det = self.transform.inverse(unit_vectors(field, y), *(p.detach() for p in parameters))
            pairing = (_ambient(field, half, self._half(score)) * back).sum() + back_log_det.sum()
            pushed = field.target.gradient(y.detach(), torch.autograd.grad(pairing, y)[0])
            pairing = (_ambient(field, moved.detach(), pushed) * moved).sum() + log_det.sum()
            (pull,) = torch.autograd.grad(pairing, z)
        pulled = score - field.target.gradient(z.detach(), pull)
        return Scored(x, total, self._replaced(pulled, pushed))

    def _half(self, x: Tensor) -> Tensor:  # (batch, *extents, …) -> (batch, n_sites, …)
        return x.flatten(1, self.domain.lattice.dimension).index_select(1, self.sites)

    def _replaced(self, x: Tensor, values: Tensor) -> Tensor:  # (batch, *extents, …), (batch, n_sites, …)
        """x with these values on the active sites."""
        return x.flatten(1, self.domain.lattice.dimension).index_copy(1, self.sites, values).view_as(x)

    def _steered(self, s: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Numbers (batch, n_sites, n_numbers) and vectors (batch, n_sites, n_vectors, n) from the frozen spins."""
        spins = s.flatten(1, self.domain.lattice.dimension)
        frozen = spins.index_fill(1, self.sites, 0.0).view_as(s)
        numbers, vectors = self.conditioner(frozen, self.sites, context)
        field = spins.index_select(1, self.neighbours.flatten()).unflatten(1, self.neighbours.shape).sum(2)
        offset = torch.arange(self.transform.n_vectors, device=s.device) >= self.transform.n_rounds
        return numbers, vectors + offset.to(s)[:, None] * field.unsqueeze(2)

    def _merge(self, x: Tensor, moved: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """x with its active spins replaced, and the log-det."""
        angles = isinstance(self.domain.target, Circle)
        values = wrap(torch.atan2(moved[..., 1], moved[..., 0])) if angles else moved
        return self._replaced(x, values), log_det.sum(1)

    @classmethod
    def examples(cls) -> Iterator[SpinCoupling]:
        """Circles and spheres in one to four dimensions, both partitions, with and without splines and context."""
        recipes: list[tuple[tuple[int, ...], Target, AxialMap, VectorSpec, int, str]] = [
            ((4, 4), Circle(), AxialMap(4), VectorSpec((3, 2)), 0, "checkerboard"),
            ((2, 4), Sphere(2), AxialMap(3), VectorSpec((3,), n_context=2), 1, "checkerboard"),
            ((6,), Sphere(1), AxialMap(0), VectorSpec((2,), kernel_size=5), 0, "checkerboard"),
            ((2, 2, 2), Sphere(3), AxialMap(2, n_rounds=2), VectorSpec((2,)), 3, "corners"),
            ((2, 2, 2, 2), Circle(), AxialMap(0), VectorSpec((2,)), 2, "corners"),
        ]
        for extents, target, transform, spec, colour, partition in recipes:
            yield cls(FieldSpace(Lattice(extents), target), transform, spec, colour, partition)


def _colours(lattice: Lattice, partition: str) -> Tensor:  # -> (V,)
    if partition not in PARTITIONS:
        raise ValueError(f"expected a partition, one of {', '.join(PARTITIONS)}, got {partition!r}")
    lattice.require_even(f"colours of a {partition}")
    odd = (lattice.coordinates() % 2).sum(1)
    return odd % 2 if partition == "checkerboard" else odd


def _ambient(field: FieldSpace, s: Tensor, v: Tensor) -> Tensor:  # (…, n), tangent -> (…, n)
    """A tangent vector at the unit vectors s, an angle's rate of change as the vector it stands for."""
    return v.unsqueeze(-1) * turned(s) if isinstance(field.target, Circle) else v
