"""Compact Lie groups of lattice theories: U(1) and SU(N)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from symmetries import spectra
from symmetries.group import LieGroup, check_count, check_elements


@dataclass(frozen=True)
class U1(LieGroup):
    """The circle group U(1); elements are real angles θ modulo 2π (the link e^{iθ}), of shape ().

    Results lie in [-π, π]; the product adds angles, the algebra is the real line. Haar measure dθ/2π.
    """

    element_shape = ()
    dim = 1

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """g + h modulo 2π."""
        return spectra.wrap(g + h)

    def inverse(self, g: Tensor) -> Tensor:
        """-g."""
        return -g

    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """n uniform angles in [-π, π)."""
        check_count(n)
        unit = torch.rand(n, generator=generator, device=generator.device, dtype=dtype or torch.float64)
        return (2 * unit - 1) * math.pi

    def algebra_basis(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """The unit of the real line: (1,)."""
        return torch.ones(1, dtype=dtype or torch.float64, device=device)

    def exp(self, v: Tensor) -> Tensor:
        """v modulo 2π."""
        return spectra.wrap(v)

    def log(self, g: Tensor) -> Tensor:
        """The angle in [-π, π]."""
        return spectra.wrap(g)

    @classmethod
    def examples(cls) -> Iterator[U1]:
        """U(1)."""
        yield cls()


@dataclass(frozen=True)
class SUN(LieGroup):
    """The special unitary group SU(N): complex N × N matrices; the algebra su(N) is anti-Hermitian.

    exp is in closed form for N = 2 and 3; its gradients, and those of `spectra.eigenangles`, are finite at
    the identity and wherever eigenvalues meet. The metric of the algebra is -2 Tr(v w).

    Args:
        n: N, at least 2.
    """

    n: int

    def __post_init__(self) -> None:
        check_count(self.n, 2)

    @property
    def element_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(N, N)."""
        return (self.n, self.n)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """N² - 1."""
        return self.n**2 - 1

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """The matrix product."""
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        """The adjoint matrix."""
        return g.mH

    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """n Haar-distributed matrices: orthonormalised Gaussian columns, the phase moved out of the first."""
        shape, dtype = (check_count(n), *self.element_shape), dtype or torch.complex128
        u = _orthonormalised(torch.randn(shape, generator=generator, device=generator.device, dtype=dtype))
        first = u[..., :1] / torch.linalg.det(u)[..., None, None]
        return torch.cat([first, u[..., 1:]], -1)

    def algebra_basis(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """T_a = i λ_a / 2 with the generalised Gell-Mann matrices λ_a: -2 Tr(T_a T_b) = δ_ab."""
        basis = torch.zeros(self.dim, *self.element_shape, dtype=torch.complex128)
        pairs = [(j, k) for k in range(self.n) for j in range(k)]
        for a, (j, k) in enumerate(pairs):
            basis[2 * a, [j, k], [k, j]] = basis.new_tensor([0.5j, 0.5j])
            basis[2 * a + 1, [j, k], [k, j]] = basis.new_tensor([0.5, -0.5])
        for a, m in enumerate(range(1, self.n), 2 * len(pairs)):
            diagonal = basis.new_tensor([1.0] * m + [-float(m)] + [0.0] * (self.n - m - 1))
            basis[a] = torch.diag(diagonal * (0.5j * math.sqrt(2 / (m * (m + 1)))))
        return basis.to(dtype=dtype or torch.complex128, device=device)

    def exp(self, v: Tensor) -> Tensor:
        """The matrix exponential of a traceless anti-Hermitian v."""
        return spectra.exponential(check_elements(self, v))

    def log(self, g: Tensor) -> Tensor:
        """The shortest v in su(N) with exp(v) = g, from the eigenangles with Σθ = 0."""
        return spectra.logarithm(check_elements(self, g))

    def project(self, g: Tensor) -> Tensor:
        """The unitary polar factor, by Newton's iteration, with the phase of its determinant divided out."""
        u = g / torch.linalg.det(check_elements(self, g)).abs().pow(1 / self.n)[..., None, None]
        for _ in range(12):
            u = (u + torch.linalg.inv_ex(u).inverse.mH) / 2
        phase = torch.linalg.det(u).angle() / self.n
        return u * torch.polar(torch.ones_like(phase), -phase)[..., None, None]

    @classmethod
    def examples(cls) -> Iterator[SUN]:
        """SU(2), SU(3), and SU(4), which has no closed forms."""
        yield from map(cls, (2, 3, 4))


def SU2() -> SUN:
    """The group SU(2) = S³."""
    return SUN(2)


def SU3() -> SUN:
    """The colour group SU(3)."""
    return SUN(3)


def _orthonormalised(z: Tensor) -> Tensor:  # (..., N, N) -> (..., N, N)
    """Gram–Schmidt on the columns, each projection done twice: Gaussian columns give Haar measure on U(N)."""
    columns: list[Tensor] = []
    for column in z.unbind(-1):
        for q in columns * 2:
            column = column - q * (q.conj() * column).sum(-1, keepdim=True)
        columns.append(column / torch.linalg.vector_norm(column, dim=-1, keepdim=True))
    return torch.stack(columns, -1)
