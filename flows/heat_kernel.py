"""The heat kernel gauge theory of SU(N) in two dimensions: exactly sampled, exactly normalised, differentiable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import final

import torch
from torch import Tensor

from flows.distribution import require_dtype
from flows.sampling.class_functions import PlaquetteProduct, first_accepted
from flows.sampling.gauge_plane import GaugePlane
from lattices.exact import CharacterExpansion, gauge_plane_plaquette, heat_kernel_expansion
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.loops import PLAQUETTE, transporter
from lattices.theories.su_n_gauge import SUNGauge
from symmetries.lie import SUN
from symmetries.spectra import eigenangles

_SMALLEST_DENSITY = 1e-12


@final
class HeatKernel(GaugePlane):
    """Villain's theory for SU(N): plaquettes with the heat kernel of the group on a torus in d = 2.

        q(U) = Π_P K_s(U_P) / Z,    K_s(g) = Σ_r d_r e^{-s C_r} χ_r(g),    Z = Σ_r e^{-s V C_r}

    in Haar measure, C of the fundamental representation (N² - 1) / 2N. Samples are independent, and ∇ log q is finite
    everywhere, since characters are polynomials in traces. K_s is summed in double precision for fields of any
    precision. A base that already has the right string tension. Cost V.

    Args:
        lattice: two axes of at least two sites.
        n: N ≥ 2.
        time: s > 0, large enough that rounding does not reach the smallest K_s: some 0.3 (SU(2)), 0.4 (SU(3)).
        dtype: real type of densities and samples (complex partner).

    Symmetries: gauge, translations, point group, charge conjugation, centre.
    References: Menotti and Onofri 1981, Nucl. Phys. B 190, 288.
    """

    log_normaliser: Tensor

    def __init__(self, lattice: Lattice, n: int, time: float, dtype: torch.dtype = torch.float64) -> None:
        if lattice.dimension != 2 or min(lattice.extents) < 2:
            raise ValueError(f"expected two axes of >= 2 sites, got {lattice.extents}: this is solved in d = 2 alone")
        if not (math.isfinite(time) and time > 0):
            raise ValueError(f"expected time > 0, got {time}: Haar measure is White(field)")
        group, expansion = SUN(n), heat_kernel_expansion(n, time)
        if not _smallest_share(expansion) > _SMALLEST_DENSITY:
            raise ValueError(f"expected a longer time for SU({n}), got {time}: rounding is larger than the smallest K")
        super().__init__(FieldSpace(lattice, Links(group), "links"), expansion, HeatKernelPlaquette(group, time).draw)
        self.time, self._kernel = float(time), self._product(1)
        self.symmetries: tuple[Symmetry, ...] = (GaugeInvariance(), Translations(), PointGroup())
        self.symmetries += (ChargeConjugation(), CentreSymmetry())
        log_z = math.log((expansion.ratios**lattice.volume).sum())
        self.register_buffer("log_normaliser", torch.tensor(log_z, dtype=dtype))

    @classmethod
    def of(cls, action: SUNGauge, dtype: torch.dtype = torch.float64, stretch: float = 1.05) -> HeatKernel:
        """With (but for `stretch`) the mean plaquette of Wilson's action in the plane: e^{-s (N² - 1) / 2N} = u_F(β).

        Wilson's plaquettes have the heavier tails; a time longer by 5 % covers them, for smaller weights.
        """
        if not isinstance(action, SUNGauge) or not action.beta > 0:
            raise ValueError(f"expected SUNGauge with beta > 0, got {action}: start from White(action.field)")
        casimir = (action.n**2 - 1) / (2 * action.n)
        time = -stretch * math.log(gauge_plane_plaquette(action.n, action.beta)) / casimir
        return cls(action.field.lattice, action.n, time, dtype)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        x = require_dtype(self, self.field.validate(x, values=False))
        plaquettes = transporter(x.to(torch.complex128), PLAQUETTE)
        density = self._kernel.density(plaquettes.flatten(0, 2)).reshape(len(x), -1)
        return density.log().sum(1).to(self.log_normaliser) - self.log_normaliser

    @classmethod
    def examples(cls) -> Iterator[HeatKernel]:
        """SU(2), SU(3) and the partner of Wilson's action, in both precisions."""
        yield cls(Lattice((2, 3)), n=2, time=2.0)
        yield cls(Lattice((2, 2)), n=3, time=1.5)
        yield cls.of(SUNGauge((2, 2), n=2, beta=1.0), dtype=torch.float32)


@final
class HeatKernelPlaquette:
    """Exact draws of K_s: a Gaussian step in the algebra, accepted with the ratio to the heat kernel.

        g = e^{iH},    p(H) ∝ e^{-Tr H² / 2s},    chance = Σ_n Π_{i<j} φ_ij 2 sin(φ_ij / 2) w / Σ_n Π_{i<j} φ_ij² w

    with w = e^{-Σφ² / 2s} and φ = θ + 2πn, Σ n = 0: all H with the eigenangles θ of g. The denominator is their density
    (eigenvalues of a Gaussian matrix), the numerator K_s(g) Π 4 sin²(θ_ij / 2) up to a constant (Poisson's summation of
    the characters), and |2 sin(φ/2)| <= |φ| makes the chance at most 1, term by term. On average it is
    e^{-s N (N² - 1) / 24}; where K_s(1) is smaller than its inverse, Haar-random g are accepted with K_s(g) / K_s(1).

    Args:
        group: SU(N).
        time: s > 0.
    """

    def __init__(self, group: SUN, time: float) -> None:
        self.group, self.time = group, time
        self.kernel = PlaquetteProduct(group, heat_kernel_expansion(group.n, time))
        self.windings = _windings(group.n, time)
        self.diffuses = time * group.n * group.dim / 24 < math.log(self.kernel.largest)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *element), double precision
        """n independent group elements on the device of the generator."""
        goals = torch.zeros(n, device=generator.device)
        if self.diffuses:
            return first_accepted(goals, lambda m: self._step(m, generator), lambda g, _: self.chance(g), generator)
        return first_accepted(
            goals, lambda m: self.group.random(m, generator), lambda g, _: self.kernel.chance(g), generator
        )

    def chance(self, g: Tensor) -> Tensor:  # (batch, N, N) -> (batch,)
        """Of a Gaussian step to be kept, from 0 to 1."""
        phi = eigenangles(g)[:, None] + 2 * math.pi * self.windings.to(g.device)
        i, j = torch.triu_indices(self.group.n, self.group.n, 1, device=g.device)
        gaps, weight = phi[..., i] - phi[..., j], torch.exp(-phi.square().sum(-1) / (2 * self.time))
        kernel = (gaps * 2 * torch.sin(gaps / 2)).prod(-1) * weight
        return kernel.sum(1) / (gaps.square().prod(-1) * weight).sum(1)

    def _step(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, N, N)
        shape, device = (n, self.group.dim), generator.device
        components = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
        basis = self.group.algebra_basis(device=device).flatten(1)
        step = math.sqrt(2 * self.time) * components.to(basis) @ basis
        return self.group.exp(step.unflatten(1, self.group.element_shape))


def _smallest_share(expansion: CharacterExpansion) -> float:
    """The least K(z) / K(1) of the centre, which holds the element farthest from 1."""
    n = expansion.weights.shape[1]
    shares = torch.as_tensor(expansion.dimensions**2 * expansion.ratios)
    boxes = torch.as_tensor(expansion.weights.sum(1), dtype=torch.float64)
    return min(float((shares * torch.cos(2 * math.pi * k / n * boxes)).sum() / shares.sum()) for k in range(1, n))


def _windings(n: int, time: float) -> Tensor:  # -> (images, N)
    """The n with Σ n = 0 and a weight above e^{-50} of that of n = 0, at eigenangles somewhere in the alcove.

    |θ + 2πn|² - |θ|² is linear in θ, so that its minimum is at one of the alcove's corners, the centre of the group.
    """
    found = [w for w in product(range(-3, 4), repeat=n) if sum(w) == 0]
    windings, rank = torch.tensor(found, dtype=torch.float64), torch.arange(n)
    corners = 2 * math.pi * torch.stack([k / n - (rank < k).double() for k in range(n)])
    growth = (4 * math.pi**2 * windings.square()).sum(1) + 4 * math.pi * (corners @ windings.T).amin(0)
    return windings[growth < 100 * time]
