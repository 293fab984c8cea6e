"""Residual (stout-like) coupling of links: every active link moves along the gradient of its frozen staples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bijection import Bijection
from flows.conditioners.loop_convolutions import LoopConvolutions, LoopSpec
from flows.transforms.circular import wrap
from flows.transforms.elementwise import EVEN
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance, require_links
from lattices.invariance import Symmetry
from lattices.lattice import Lattice
from lattices.link_partitions import LinkPartition, Transport, link_parity, link_stripes, require_frozen_staples
from lattices.loops import matrices
from symmetries.group import LieGroup
from symmetries.lie import SUN, U1
from symmetries.spectra import traceless_anti_hermitian

SERIES_TERMS = 24  # of ψ(ad Q): |ad Q| <= 2, and 2^24 / 25! < 1e-17


@final
class ResidualCoupling(Bijection):
    """U' = exp(Q[U]) U, Q = -[Σ_k c_k U A_k], A_k the frozen staples of an active link; [·] projects on the algebra.

        log|det| = Σ log det(1 - ψ(ad Q) K),  K_ab = -2 Re Tr T_a T_b M,  M = Σ_k c_k U A_k,  ψ(z) = (1 - e^{-z}) / z

    the exact real (N² - 1)² block of each link, with ad Q = K - Kᵀ. The c_k are functions of frozen loops. Σ|c_k| <=
    limit < 1 makes |K| < 1: the determinant is positive, the layer a diffeomorphism, and U ↦ exp(-Q[U]) U' a
    contraction, which the inverse iterates. Zero c_k are the identity. Cost O(V N⁶), and per iteration O(V N³).

    Args:
        field: links in U(1) or SU(N).
        partition: the active links, of `link_parity`, or `link_stripes`.
        spec: the network for c_k = limit tanh(·) / 2(d - 1).
        limit: 0 < limit < 1.
        max_iterations: of the inverse; a RuntimeError reports that they were not enough.
        dtype: of the weights, real.

    Symmetries: gauge, charge conjugation, centre, translations that keep the partition.
    References: Morningstar and Peardon (2004), hep-lat/0311018; Abbott et al. (2023), 2305.02402, section II.
    """

    def __init__(
        self,
        field: FieldSpace,
        partition: LinkPartition,
        spec: LoopSpec | None = None,
        limit: float = 0.9,
        max_iterations: int = 1000,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.group = require_links(field)
        if field.lattice != partition.lattice:
            raise ValueError(f"expected links on {partition.lattice}, got {field.lattice}: change either")
        if not 0 < limit < 1 or max_iterations < 1:
            raise ValueError(f"expected 0 < limit < 1 and max_iterations >= 1, got {limit} and {max_iterations}")
        self.domain = self.codomain = field
        self.partition, self.limit, self.max_iterations = partition, limit, max_iterations
        mu, paths = partition.axes[0] + 1, require_frozen_staples(partition)
        loops = [(mu, *path) for path in paths]
        self.staples = nn.ModuleList(Transport(field.lattice, loop, partition.sites, skip=1) for loop in loops)
        self.conditioner = LoopConvolutions(field, partition, EVEN * len(paths), spec, dtype)
        self.symmetries: tuple[Symmetry, ...] = (
            GaugeInvariance(), ChargeConjugation(), CentreSymmetry(), partition.translations,
        )  # fmt: skip

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, staples = self._split(z, context)
        m = u @ staples
        return self._merge(z, _exponential(-m) @ u), _log_det(self.group, m).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        target, staples = self._split(x, context)
        with torch.no_grad():
            u = self._iterated(target, staples)
        u = _newton(self.group, u, target, staples)
        return self._merge(x, u), -_log_det(self.group, u @ staples).sum(1)

    def _split(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:  # -> 2 × (batch, n, N, N)
        """The active links and the weighted sum of their staples."""
        u = matrices(self.domain, x)
        weights = self.limit / len(self.staples) * torch.tanh(self.conditioner(x, context))
        terms = [c[..., None, None] * staple(u) for c, staple in zip(weights.unbind(-1), self.staples)]
        return self.partition.split(u), torch.stack(terms).sum(0)

    def _merge(self, x: Tensor, u: Tensor) -> Tensor:
        """x with active links u."""
        return self.partition.merge(x, u if x.is_complex() else wrap(u.angle().squeeze(-1).squeeze(-1)))

    def _iterated(self, target: Tensor, staples: Tensor) -> Tensor:
        """The fixed point of u = exp(-Q[u]) u'."""
        u, tolerance = target, 32 * torch.finfo(target.dtype).eps
        for _ in range(self.max_iterations):
            before, u = u, _exponential(u @ staples) @ target
            if bool(((u - before).abs() <= tolerance).all()):
                return u
        raise RuntimeError(
            f"expected the inverse to converge in {self.max_iterations} iterations, got steps of "
            f"{(u - before).abs().max().item():.1e}: lower limit={self.limit}, or raise max_iterations"
        )

    @classmethod
    def examples(cls) -> Iterator[ResidualCoupling]:
        """U(1), SU(2), SU(3) and SU(4), on parities and stripes, in two, three and four dimensions."""
        recipes: list[tuple[LinkPartition, LieGroup, LoopSpec]] = [
            (link_parity(Lattice((4, 4)), 0, 1), U1(), LoopSpec((3, 2))),
            (link_parity(Lattice((2, 4)), 1, 0), SUN(2), LoopSpec((2,), n_context=1)),
            (link_stripes(Lattice((2, 4)), 0, 2), SUN(3), LoopSpec((2,))),
            (link_parity(Lattice((2, 2)), 0, 0), SUN(4), LoopSpec((2,))),
            (link_parity(Lattice((2, 2, 2)), 2, 1), SUN(2), LoopSpec((2,), rectangles=False)),
            (link_parity(Lattice((2, 2, 2, 2)), 3, 0), U1(), LoopSpec((2,), kernel_size=1)),
        ]
        for partition, group, spec in recipes:
            yield cls(FieldSpace(partition.lattice, Links(group), "links"), partition, spec)


def _algebra_part(m: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    """[m]: the part in su(N), or in u(1) for N = 1."""
    return traceless_anti_hermitian(m) if m.shape[-1] > 1 else (m - m.mH) / 2


def _exponential(m: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    """exp [m]."""
    a = _algebra_part(m)
    return torch.linalg.matrix_exp(a) if m.shape[-1] > 3 else SUN(m.shape[-1]).exp(a) if m.shape[-1] > 1 else a.exp()


def _generators(group: LieGroup, m: Tensor) -> Tensor:  # -> (N² - 1, N, N)
    """T_a with -2 Tr T_a T_b = δ_ab; for U(1) i/√2, the same with a 1 × 1 matrix."""
    basis = group.algebra_basis(dtype=m.dtype, device=m.device)
    return basis if group.element_shape else basis[:, None, None] * (1j / 2**0.5)


def _linearised(group: LieGroup, m: Tensor) -> Tensor:  # (..., N, N) -> (..., D, D), real
    """K_ab = -2 Re Tr T_a T_b m: coordinates of [v m] from those of v."""
    t = _generators(group, m)
    pairs = torch.view_as_real(-2 * torch.einsum("aij,bjk->abki", t, t).conj()).flatten(2).flatten(0, 1)
    return (torch.view_as_real(m).flatten(-3) @ pairs.mT).unflatten(-1, (len(t), len(t)))


def _psi_times(k: Tensor) -> Tensor:  # (..., D, D) -> (..., D, D)
    """ψ(ad Q) K with ad Q = K - Kᵀ, by Horner's rule."""
    ad, total = k - k.mT, k
    for n in range(SERIES_TERMS, 1, -1):
        total = k - ad @ total / n
    return total


def _log_det(group: LieGroup, m: Tensor) -> Tensor:  # (..., N, N) -> (...)
    """log det(1 - ψ(ad Q) K), without the factor e^{ad Q} of determinant 1."""
    k = _linearised(group, m)
    return torch.linalg.slogdet(torch.eye(k.shape[-1], dtype=k.dtype, device=k.device) - _psi_times(k)).logabsdet


def _newton(group: LieGroup, u: Tensor, target: Tensor, staples: Tensor) -> Tensor:
    """One step from the solution u: nothing in value, the derivatives of the implicit function theorem."""
    m = (u @ staples).detach()
    turn, k, t = _exponential(-m), _linearised(group, m), _generators(group, m)
    miss = _algebra_part(_exponential(-(u @ staples)) @ u @ target.mH)
    coordinates = -2 * torch.einsum("aij,...ji->...a", t, turn.mH @ miss @ turn).real
    block = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device) - _psi_times(k)
    step = torch.linalg.solve(block, coordinates)
    return _exponential(-torch.einsum("...a,aij->...ij", step.to(t.dtype), t)) @ u
