"""Equivariant continuous flow: an ordinary differential equation of the field with an exact divergence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn

from flows.bijection import Scored
from flows.layers.integrated import IntegratedFlow, context_columns, legendre, monomials, tangents_along
from flows.layers.integration import Fields, integrate, tableau
from flows.layers.kernels import OrbitKernels
from lattices.blocking import Blocking, BlockPointGroup
from lattices.fields import FieldSpace, Real
from lattices.invariance import ColourPermutations, PointGroup, SignFlip, Symmetry, Translations, simplex
from lattices.lattice import Lattice


@dataclass(frozen=True)
class VectorFieldSpec:
    """What a continuous flow is made of; plain numbers only.

    Args:
        frequencies: ω_f of the features sin(ω_f ψ), in units of 1/field.
        smoothing: masses m of further features on ψ = m²/(m² + k̂²) φ (collective, long-range modes); () for none.
        radius: range of the orbit kernels in lattice units, None for the full range.
        tails: masses m of Yukawa kernels m²/(m² + k̂²) beside them: long range for few parameters.
        n_times: number of Legendre polynomials in time.
        odd: keep x ↦ -x as a symmetry; otherwise cosines and a constant drift are added.
        colours: q of a field in R^{q-1} with the symmetry of the q-state Potts model; 0 for a scalar field.
        blocking: keep the block field of this kind fixed ("average" or "decimation", 2^d blocks): a flow of the
            details alone, conditional on the coarse field; None moves everything.
        modulations: frequencies ν of the coarse field: with a blocking, features sin(ω ψ ± ν BᵀB φ) beside ν = 0.
        n_context: number of couplings the flow is conditioned on.
        context_degree: the coefficients are polynomials of this degree in the couplings.
    """

    frequencies: tuple[float, ...] = (0.7, 1.4, 2.1, 2.8, 3.5)
    smoothing: tuple[float, ...] = ()
    radius: float | None = None
    tails: tuple[float, ...] = ()
    n_times: int = 4
    odd: bool = True
    colours: int = 0
    blocking: str | None = None
    modulations: tuple[float, ...] = ()
    n_context: int = 0
    context_degree: int = 2

    def __post_init__(self) -> None:
        if self.n_times < 1 or self.n_context < 0 or self.context_degree < 1:
            raise ValueError(f"expected n_times >= 1, n_context >= 0 and context_degree >= 1, got {self}: raise them")
        if any(not m > 0 for m in (*self.smoothing, *self.tails)):
            raise ValueError(f"expected positive masses, got {self.smoothing} and {self.tails}: leave () for none")
        if self.modulations and not self.blocking:
            raise ValueError(f"expected a blocking with modulations {self.modulations}, got none: set blocking=...")
        if self.colours and self.colours < 3:
            raise ValueError(f"expected 3 or more colours, got {self.colours}: two are a scalar field, colours=0")

    def features(self) -> list[tuple[float, float, float]]:
        """(ω, ν, phase) of the features sin(ω ψ + ν c̄ + phase), c̄ = BᵀB φ."""
        constant = () if self.colours else (0.0,)  # Σ_a e_a = 0
        cosines = () if self.odd else (*constant, *self.frequencies)
        waves = [(omega, 0.0) for omega in self.frequencies] + [(omega, math.pi / 2) for omega in cosines]
        coarse = (0.0, *self.modulations, *(-nu for nu in self.modulations))
        return [(omega, nu, phase) for nu in coarse for omega, phase in waves]

    @property
    def target(self) -> Real:
        """Where the field takes its values."""
        return Real(self.colours - 1) if self.colours else Real()

    def symmetries(self) -> tuple[Symmetry, ...]:
        """What every flow of this kind commutes with."""
        translations = Translations(2 if self.blocking else 1)
        points = BlockPointGroup() if self.blocking == "average" else PointGroup()
        colours = (ColourPermutations(self.colours),) if self.colours else ()
        return translations, points, *(SignFlip(),) * self.odd, *colours

    def monomials(self) -> list[tuple[int, ...]]:
        """The products of couplings, by index, that coefficients are linear in; the first is 1."""
        return monomials(self.n_context, self.context_degree)


class ContinuousFlow(IntegratedFlow):
    """x = φ(1) of dφ/dt = Σ_{h,f} W_{hf}(t) * sin(ω_f ψ_h) + W_0(t) * φ,  ψ_h = G_h * φ,  φ(0) = z.

        W_a(t) = Σ_{j,b} θ_{jab} P_j(2t - 1) K_b,
        div v = Σ_{h,f} ω_f (W_{hf} * G_h)(0) Σ_x cos(ω_f ψ_h(x)) + V W_0(0).

    K_b are point-group orbit and Yukawa kernels, P_j Legendre polynomials; everything is linear in the parameters θ,
    and zero θ is the identity. With a blocking B the velocity is (1 - BᵀB) v, W(0) becomes the diagonal of
    (1 - BᵀB) W, and B φ stays what it was. With q colours v = Σ_a e_a v_a, v_a the velocity above of e_a·φ. The
    divergence is exact, so log|det| is exact up to the integration error, O(h^order), which `integration_error`
    measures. Cost: O(F V log V) per evaluation, q times that for colours.

    Args:
        field: real scalar fields in d = 1…4, or fields in R^{q-1} for q colours.
        spec: features, kernels, time dependence, blocking and context.
        n_steps, method: steps and Runge–Kutta method ("rk4", "dopri5", "dop853").
    Shape: θ is (n_monomials, n_times, n_features, n_kernels).
    Symmetries: translations, the point group (of blocks), Z₂ if spec.odd, S_q of the colours.
    References: Gerdes et al. (2022), arXiv:2207.00283, eq. 12; de Haan et al. (2021), arXiv:2110.02673.
    """

    def __init__(
        self, field: FieldSpace, spec: VectorFieldSpec | None = None, n_steps: int = 8, method: str = "rk4",
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        super().__init__()
        spec = spec or VectorFieldSpec()
        if field.target != spec.target or field.cells != "sites":
            raise ValueError(
                f"expected a field in {spec.target} on sites, got {field}: use FieldSpace(lattice, spec.target)"
            )
        if n_steps < 1:
            raise ValueError(f"expected n_steps >= 1, got {n_steps}: 8 steps of rk4 are a good start")
        tableau(method)
        self.domain = self.codomain = field
        self.spec, self.n_steps, self.method = spec, n_steps, method
        self.blocking = Blocking(spec.blocking) if spec.blocking else None
        if self.blocking:
            self.blocking.coarse(field.lattice)  # refuses extents that cannot be blocked
        self.kernels = OrbitKernels(field.lattice, spec.radius)
        self.symmetries = spec.symmetries()
        self._add_constants(field.lattice, dtype)
        shape = (len(self.spec.monomials()), self.spec.n_times, len(self.kappa), self.spectrum.shape[0])
        self.theta = nn.Parameter(torch.zeros(shape, dtype=dtype))

    def _add_constants(self, lattice: Lattice, dtype: torch.dtype) -> None:
        k_squared = lattice.laplacian_spectrum()[..., : lattice.extents[-1] // 2 + 1]
        smooth = torch.stack([torch.ones_like(k_squared), *_yukawas(self.spec.smoothing, k_squared)])
        spectrum = torch.stack([*self.kernels.spectrum(), *_yukawas(self.spec.tails, k_squared)])
        weight = torch.full_like(k_squared, 2.0)
        weight[..., 0] = 1.0
        if lattice.extents[-1] % 2 == 0:
            weight[..., -1] = 1.0
        weighted = spectrum * weight / lattice.volume  # Σ_half grid of this times f̂ is the sum over all k, over V
        omega, nu, phase = torch.tensor(self.spec.features(), dtype=torch.float64).reshape(-1, 3).T
        trace = self._diagonal(torch.cat([smooth, torch.ones_like(smooth[:1])]), spectrum)  # (h + 1, b, *cell)
        sines = torch.einsum("hb...,f->hfb...", trace[:-1], omega).flatten(0, 1)
        kappa = torch.cat([sines, trace[-1:]])
        column = (-1, *[1] * lattice.dimension)
        constants = {
            "spectrum": spectrum, "smooth": smooth, "weighted": weighted.flatten(1), "kappa": kappa,
            "omega": omega.reshape(column), "nu": nu.reshape(column), "phase": phase.reshape(column),
            "colours": simplex(self.spec.colours) if self.spec.colours else torch.ones(1, 1),
        }  # fmt: skip
        for name, value in constants.items():
            self.register_buffer(name, value.to(dtype), persistent=False)

    def _diagonal(self, first: Tensor, second: Tensor) -> Tensor:  # -> (n_first, n_second, *cell)
        """[G_h (1 - BᵀB) K_b](y, y) for y in one cell: its own value wherever it does not depend on y."""
        d = self.domain.lattice.dimension
        first, second = self._real(first), self._real(second)
        whole = torch.einsum("h...,b...->hb", first, second)
        if self.blocking is None:
            return whole.reshape(*whole.shape, *[1] * d)
        size, axes = self.blocking.size, tuple(range(1, d + 1))
        corners = list(product(range(size), repeat=d))
        blocked = [[self.blocking.down(f.roll(y, axes), d) for f in (first, second)] for y in corners]
        trace = torch.stack([whole - torch.einsum("h...,b...->hb", g, k) for g, k in blocked], -1)
        uniform = torch.allclose(trace, trace[..., :1].expand_as(trace), atol=1e-12)
        return trace[..., 0].reshape(*whole.shape, *[1] * d) if uniform else trace.unflatten(-1, [size] * d)

    def coefficients(self, t: float, context: Tensor | None = None) -> Tensor:  # -> (1 or batch, features, kernels)
        """Σ θ_{mjab} (monomial m of the couplings) P_j(2t - 1)."""
        return torch.einsum("bm,j,mjak->bak", self._context(context), self._legendre(t), self.theta)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = integrate(self._rates(context), (z, z.new_zeros(len(z))), (0.0, 1.0), self.n_steps, self.method)
        return x, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = integrate(self._rates(context), (x, x.new_zeros(len(x))), (1.0, 0.0), self.n_steps, self.method)
        return z, log_det

    @torch.no_grad()
    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score along: ds/dt = -(∂v/∂φ)ᵀ s - ∇ div v; the cost of one and a half forward passes."""
        start = (z, z.new_zeros(len(z)), score)
        return Scored(*integrate(self._rates(context), start, (0.0, 1.0), self.n_steps, self.method))

    @torch.no_grad()
    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        rates = self._rates(context)

        def advance(state: Fields, t: float, h: float) -> Fields:
            return integrate(rates, state, (t, t + h), 1, self.method)

        def stein(state: Fields) -> Tensor:
            return self._stein(state[0], state[2])

        start: Fields = (z, z.new_zeros(len(z)), score)
        state, tangents = tangents_along(self, self._context(context), start, advance, stein)
        return Scored(*state), tangents

    def refined(self, n_steps: int, method: str | None = None) -> ContinuousFlow:
        """The same flow with the same parameters (shared), integrated with other steps or another method."""
        other = ContinuousFlow(self.domain, self.spec, n_steps, method or self.method, self.theta.dtype)
        other.to(self.theta.device)
        other.theta = self.theta
        return other

    def transferred(self, lattice: Lattice, radius: float | None = None) -> ContinuousFlow:
        """This flow on another lattice: orbit weights are copied, orbits that are new there start at zero.

        Args:
            lattice: usually larger; of the same dimension, with the same axes equal (a square goes to a square).
            radius: range of the kernels there; None for the full range.
        """
        own = self.domain.lattice
        if _equal_axes(lattice) != _equal_axes(own):
            raise ValueError(f"expected a lattice whose equal axes are those of {own}, got {lattice}: orbits differ")
        field = FieldSpace(lattice, self.domain.target)
        other = ContinuousFlow(field, replace(self.spec, radius=radius), self.n_steps, self.method, self.theta.dtype)
        index = {d: b for b, d in enumerate(self.kernels.displacements)}
        pairs = [(index[d], b) for b, d in enumerate(other.kernels.displacements) if d in index]
        pairs += [(-n, -n) for n in range(1, len(self.spec.tails) + 1)]
        with torch.no_grad():
            old, new = (list(column) for column in zip(*pairs))
            other.theta[..., new] = self.theta[..., old].to(other.theta.device)
        return other

    def extra_repr(self) -> str:
        return f"{self.domain.lattice}, {self.spec}, n_steps={self.n_steps}, method={self.method!r}"

    def _rates(self, context: Tensor | None):  # type: ignore[no-untyped-def]
        def rates(t: float, state: Fields) -> Fields:
            coefficients = self.coefficients(t, context)
            return self._velocity(coefficients, state[0], state[2] if len(state) == 3 else None)

        return rates

    def _velocity(self, coefficients: Tensor, x: Tensor, score: Tensor | None) -> Fields:
        """(dφ/dt, div v) and, given a score s, ds/dt."""
        x, n = self._split(x), len(x)
        coefficients = coefficients.repeat_interleave(len(x) // n, 0) if len(coefficients) > 1 else coefficients
        hats, sine, cosine = self._features(x)
        kernels = torch.einsum("bak,k...->ba...", coefficients, self.spectrum)
        origin = torch.einsum("bak,ak...->ba...", coefficients, self.kappa)  # W_a(0), times ω of the sines
        velocity = self._projected(self._joined(self._real((kernels * hats).sum(1))))
        divergence = (self._cell_sums(cosine) * origin[:, :-1]).flatten(1).sum(1)
        divergence = divergence + origin[:, -1].flatten(1).mean(1) * self.domain.lattice.volume
        divergence = divergence.reshape(n, -1).sum(1)
        if score is None:
            return velocity, divergence
        pulled = self._real(kernels * self._hat(self._split(self._projected(score)))[:, None])  # W_a * s
        slopes = cosine * pulled[:, :-1] - sine * self._tiled(origin[:, :-1])
        return velocity, divergence, -self._joined(self._back(slopes) + pulled[:, -1])

    def _back(self, slopes: Tensor) -> Tensor:  # (batch, h·f, *extents) -> (batch, *extents)
        """The gradient with respect to φ from those with respect to the angles ω_f ψ_h + ν_f BᵀB φ."""
        slopes = slopes.unflatten(1, (len(self.smooth), -1))
        smoothed = self._hat((self.omega * slopes).sum(2)) * self.smooth
        back = self._real(smoothed.sum(1))
        if self.spec.modulations:
            coarse = (self.nu * slopes).sum((1, 2))
            back = back + coarse - self._projected(coarse)
        return back

    def _stein(self, x: Tensor, score: Tensor) -> Tensor:  # -> (batch, n_features, n_kernels)
        """div v_a + s · v_a for the elementary fields v_{ab} = K_b * feature_a; zero mean under the density of s."""
        x, score, n = self._split(x), self._split(self._projected(score)), len(x)
        hats, _, cosine = self._features(x)
        overlap = (self._hat(score).conj()[:, None] * hats).real.flatten(2) @ self.weighted.T
        sums = self._cell_sums(cosine)
        sites = self.domain.lattice.volume / math.prod(sums.shape[2:])
        sums = torch.cat([sums, sums.new_full((len(sums), 1, *sums.shape[2:]), sites)], 1)
        return (overlap + torch.einsum("ba...,ak...->bak", sums, self.kappa)).unflatten(0, (n, -1)).sum(1)

    def _split(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch · colours, *extents)
        """e_a·φ for every colour a, as scalar fields."""
        return torch.einsum("b...n,an->ba...", x, self.colours).flatten(0, 1) if self.spec.colours else x

    def _joined(self, u: Tensor) -> Tensor:  # (batch · colours, *extents) -> (batch, *event)
        """Σ_a e_a u_a."""
        if not self.spec.colours:
            return u
        return torch.einsum("ba...,an->b...n", u.unflatten(0, (-1, self.spec.colours)), self.colours)

    def _projected(self, v: Tensor) -> Tensor:
        """The part of a velocity that leaves the block field alone."""
        return v if self.blocking is None else self.blocking.details(v, self.domain.lattice.dimension)

    def _cell_sums(self, x: Tensor) -> Tensor:  # (batch, features, *extents) -> (batch, features, *cell)
        """Sums over the sites that are equivalent: all of them, or those with one place in their block."""
        cell = self.kappa.shape[2:]
        if math.prod(cell) == 1:
            return x.flatten(2).sum(2).reshape(*x.shape[:2], *cell)
        for axis, size in enumerate(cell):
            x = x.unflatten(2 + 2 * axis, (-1, size))
        return x.sum(tuple(range(2, 2 + 2 * len(cell), 2)))

    def _tiled(self, cell: Tensor) -> Tensor:  # (batch, features, *cell) -> the same on all sites, or broadcasting
        if cell.shape[2] == 1:
            return cell
        return cell.repeat(1, 1, *(n // m for n, m in zip(self.domain.lattice.extents, cell.shape[2:])))

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Transforms (batch, h·f + 1, *half) of sin(ω ψ_h) and φ; sin(ω ψ_h) and cos(ω ψ_h) (batch, h·f, *extents)."""
        psi = x[:, None]
        if len(self.smooth) > 1:
            psi = self._real(self._hat(psi) * self.smooth)
        angle = psi[:, :, None] * self.omega + self.phase
        if self.spec.modulations:
            angle = angle + (x - self._projected(x))[:, None, None] * self.nu
        angle = angle.flatten(1, 2)
        sine = torch.sin(angle)
        return self._hat(torch.cat([sine, x[:, None]], 1)), sine, torch.cos(angle)

    def _hat(self, x: Tensor) -> Tensor:
        return torch.fft.rfftn(x, dim=self.domain.lattice.axes)

    def _real(self, hat: Tensor) -> Tensor:
        lattice = self.domain.lattice
        return torch.fft.irfftn(hat, s=lattice.extents, dim=lattice.axes)

    def _legendre(self, t: float) -> Tensor:  # -> (n_times,)
        return self.theta.new_tensor(legendre(t, self.spec.n_times))

    def _context(self, context: Tensor | None) -> Tensor:  # -> (1 or batch, n_monomials)
        return context_columns(context, self.spec.n_context, self.spec.context_degree, self.theta)

    @classmethod
    def examples(cls) -> Iterator[ContinuousFlow]:
        """All kinds of lattices and specs: rectangles, blockings, couplings, colours, one and three dimensions."""
        wide = VectorFieldSpec((0.5, 1.0), smoothing=(0.7,), radius=1.5, tails=(1.0,), n_times=2, n_context=2)
        details = replace(wide, blocking="average", modulations=(0.6,), n_context=1)
        specs = {
            (4, 4): VectorFieldSpec(n_times=2),
            (3, 4): wide,
            (5,): VectorFieldSpec((1.0,), n_times=1, odd=False),
            (2, 2, 3): VectorFieldSpec((0.8,), n_times=2),
            (3,): VectorFieldSpec((), n_times=1),
            (4, 2): details,
            (6,): replace(details, blocking="decimation", odd=False, smoothing=()),
            (2, 3): VectorFieldSpec((0.5, 1.0), tails=(1.0,), n_times=2, odd=False, colours=3),
            (2, 4): VectorFieldSpec((0.9,), n_times=2, colours=4, blocking="average", modulations=(0.5,)),
        }
        for extents, spec in specs.items():
            yield cls(FieldSpace(Lattice(extents), spec.target), spec, method="dop853")


def _equal_axes(lattice: Lattice) -> list[list[bool]]:
    return [[m == n for m in lattice.extents] for n in lattice.extents]


def _yukawas(masses: tuple[float, ...], k_squared: Tensor) -> list[Tensor]:
    """m²/(m² + k̂²) for each mass: kernels of range 1/m with unit weight."""
    return [m * m / (m * m + k_squared) for m in masses]
