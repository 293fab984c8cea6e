"""φ⁴ theory on small tori: Gauss quadrature on the sites, a transfer matrix between slabs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.linalg import eigh_tridiagonal

from lattices.exact.geometry import checked_count, checked_extents, checked_number

_MAX_SLAB_SITES = 4
_CHUNK = 2**22  # numbers held at once while slabs are propagated


@dataclass(frozen=True)
class Phi4Moments:
    """Exact log Z (Lebesgue measure), moments of φ at one site, and a bound on the error of log Z."""

    log_z: float
    phi_squared: float
    phi_fourth: float
    quadrature_error: float


def phi4_moments(extents: Sequence[int], mass_squared: float, quartic: float, n_nodes: int = 12) -> Phi4Moments:
    """log Z, ⟨φ²⟩ and ⟨φ⁴⟩ of φ⁴ theory on a small torus: rings, 2×L, 3×L, 4×L, 2×2×L.

        S = Σ_x [ Σ_μ (φ_{x+μ} - φ_x)² + m² φ_x² + λ φ_x⁴ ],    Z = ∫ d^Vφ e^{-S} = Tr T^L

    A slab is the lattice without its longest direction L; directions of length 2 count both bonds. A site
    is integrated by the Gauss rule of a weight close to its marginal, so the error falls exponentially in
    `n_nodes` and is below the change from `n_nodes - 4`. Slabs equal up to translation, inversion and sign
    are propagated once: cost ≈ L n_nodes^(2s+1) / 4 for slabs of s sites (4×4: two seconds).

    Args:
        extents: lattice lengths; their product without the longest is at most 4.
        mass_squared: m² in lattice units, of either sign.
        quartic: λ > 0, or λ = 0 with m² > 0.
        n_nodes: quadrature nodes per site, at least 6.

    References:
        G. H. Golub, J. H. Welsch, Math. Comp. 23 (1969) 221: nodes and weights of a Gauss rule.
    """
    *slab, length = sorted(checked_extents(extents))
    shape = tuple(slab) or (1,)
    _check(shape, checked_number("mass_squared", mass_squared), checked_number("quartic", quartic, 0))
    n_nodes = checked_count("n_nodes", n_nodes, 6)
    log_z, phi_squared, phi_fourth = _trace(shape, length, mass_squared, quartic, n_nodes)
    coarse, *_ = _trace(shape, length, mass_squared, quartic, n_nodes - 4)
    return Phi4Moments(log_z, phi_squared, phi_fourth, abs(log_z - coarse))


def _check(shape: tuple[int, ...], mass_squared: float, quartic: float) -> None:
    if math.prod(shape) > _MAX_SLAB_SITES:
        raise ValueError(
            f"expected at most {_MAX_SLAB_SITES} sites beside the longest direction, got {shape}: "
            "simulate larger lattices"
        )
    if quartic == 0 and mass_squared <= 0:
        raise ValueError(f"expected quartic > 0 or mass_squared > 0, got {quartic} and {mass_squared}: Z diverges")


@dataclass(frozen=True)
class _TransferMatrix:
    """T = √D K √D on slabs of quadrature nodes: D their weight with inner bonds, K = Π_sites e^{-(φ-φ')²}."""

    shape: tuple[int, ...]
    nodes: np.ndarray  # (n,)
    kernel: np.ndarray  # (n, n)
    slabs: np.ndarray  # (sites, n**sites): indices of nodes
    root: np.ndarray  # (n**sites,): √D

    @classmethod
    def of(cls, shape: tuple[int, ...], length: int, mass_squared: float, quartic: float, n: int) -> _TransferMatrix:
        shift = 1.5 * sum(extent > 1 for extent in (*shape, length))  # brings the rule close to the marginal
        nodes, weights = _gauss_rule(mass_squared + shift, quartic, n)
        sites = math.prod(shape)
        slabs = np.indices((n,) * sites).reshape(sites, -1)
        exponent = shift * (nodes[slabs] ** 2).sum(0) - _inner_bonds(nodes[slabs], shape)
        root = np.sqrt(weights[slabs].prod(0)) * np.exp(exponent / 2)
        return cls(shape, nodes, np.exp(-(np.subtract.outer(nodes, nodes) ** 2)), slabs, root)

    def apply(self, vectors: np.ndarray) -> np.ndarray:  # (batch, n**sites) -> (batch, n**sites)
        n, sites = len(self.nodes), len(self.slabs)
        result = (vectors * self.root).reshape(-1, *(n,) * sites)
        for _ in range(sites):  # contracts the first site and appends its image as the last
            result = np.tensordot(result, self.kernel, axes=(1, 0))
        return result.reshape(len(vectors), -1) * self.root

    def growth(self, n_iterations: int = 30) -> float:
        """Largest eigenvalue, to the accuracy that keeps powers in range."""
        vector = np.ones((1, len(self.root)))
        for _ in range(n_iterations):
            vector = self.apply(vector)
            eigenvalue = float(np.linalg.norm(vector))
            vector /= eigenvalue
        return eigenvalue

    def orbits(self) -> tuple[np.ndarray, np.ndarray]:
        """One slab of every class under translations, inversion and sign, and the sizes of the classes."""
        n, axes = len(self.nodes), tuple(range(len(self.shape)))
        grid = self.slabs.reshape(*self.shape, -1)
        mirrors = (grid, n - 1 - grid, np.flip(grid, axes), n - 1 - np.flip(grid, axes))
        images = (np.roll(mirror, shift, axes) for mirror in mirrors for shift in np.ndindex(self.shape))
        bases = (n,) * len(self.slabs)
        codes = (np.ravel_multi_index(tuple(image.reshape(self.slabs.shape)), bases) for image in images)
        return np.unique(reduce(np.minimum, codes), return_counts=True)


def _trace(
    shape: tuple[int, ...], length: int, mass_squared: float, quartic: float, n: int
) -> tuple[float, float, float]:
    """log Tr T^L, and the moments ⟨φ²⟩, ⟨φ⁴⟩ of one slab."""
    transfer = _TransferMatrix.of(shape, length, mass_squared, quartic, n)
    slabs, sizes = transfer.orbits()
    growth = transfer.growth()
    n_chunks = -(-slabs.size * transfer.root.size // _CHUNK)
    chunks = np.array_split(slabs, n_chunks)
    diagonal = np.concatenate([_diagonal_of_power(transfer, chunk, length, growth) for chunk in chunks])
    weights = sizes * diagonal
    field = transfer.nodes[transfer.slabs[:, slabs]]
    second, fourth = (float((field**power).mean(0) @ weights / weights.sum()) for power in (2, 4))
    return math.log(weights.sum()) + length * math.log(growth), second, fourth


def _diagonal_of_power(
    transfer: _TransferMatrix, slabs: np.ndarray, length: int, growth: float
) -> np.ndarray:  # -> (slabs,)
    """⟨s|T^L|s⟩ / growth^L as the product of T^⌊L/2⌋|s⟩ and T^⌈L/2⌉|s⟩."""
    vectors = np.zeros((len(slabs), len(transfer.root)))
    vectors[np.arange(len(slabs)), slabs] = 1
    for _ in range(length // 2):
        vectors = transfer.apply(vectors) / growth
    others = transfer.apply(vectors) / growth if length % 2 else vectors
    return np.einsum("bi,bi->b", vectors, others)


def _inner_bonds(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:  # (sites, slabs) -> (slabs,)
    grid = field.reshape(*shape, -1)
    bonds = sum((np.roll(grid, 1, axis) - grid) ** 2 for axis in range(len(shape)))
    return np.reshape(bonds, field.shape).sum(0)


def _gauss_rule(quadratic: float, quartic: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for ∫dx e^{-a x² - λ x⁴} f(x), from the recurrence of its orthonormal polynomials."""
    x, density = _tabulated(quadratic, quartic)
    previous, current = np.zeros_like(x), np.full_like(x, density.sum() ** -0.5)
    coefficients = [0.0]
    for _ in range(n - 1):
        following = x * current - coefficients[-1] * previous
        coefficients.append(math.sqrt(density @ following**2))
        previous, current = current, following / coefficients[-1]
    nodes, vectors = eigh_tridiagonal(np.zeros(n), np.array(coefficients[1:]))
    weights = density.sum() * vectors[0] ** 2
    return (nodes - nodes[::-1]) / 2, (weights + weights[::-1]) / 2


def _tabulated(quadratic: float, quartic: float, n: int = 4000, depth: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints and e^{-a x² - λ x⁴} dx where the exponent is within `depth` of its minimum."""
    if quadratic >= 0:
        square = 2 * depth / (quadratic + math.sqrt(quadratic**2 + 4 * quartic * depth))
    else:
        square = (-quadratic + math.sqrt(4 * quartic * depth)) / (2 * quartic)
    step = 2 * math.sqrt(square) / n
    x = step * (np.arange(n) - (n - 1) / 2)
    return x, step * np.exp(-quadratic * x**2 - quartic * x**4)
