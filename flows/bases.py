"""Base distributions: the reference measure itself, and Gaussians that are diagonal in momentum space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.distribution import Distribution, require_dtype
from flows.spectral import multiply_modes, require_real_sites
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Links, Real, Sphere, Target
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance
from lattices.invariance import ColourPermutations, PointGroup, PointTransformation, SignFlip, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import GlobalRotations, IndependentShifts


@final
class White(Distribution):
    """No correlations: standard normal on R, uniform on circles, spheres and groups.

        q(x) = Π_x e^{-x²/2} / √(2π)   or   q(x) = 1 / (total reference measure)

    Cost O(V).

    Args:
        field: any field space.
        dtype: real type of the densities; samples have it too, or its complex partner on complex groups.

    Symmetries: translations; the point group on sites; the sign flip on R, the global O(n) on circles and spheres, with
    shifts of every angle on its own; all symmetries of gauge theory on links of a group.
    """

    log_normaliser: Tensor

    def __init__(self, field: FieldSpace, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.field, target = field, field.target
        self.symmetries: tuple[Symmetry, ...] = (Translations(),) + (PointGroup(),) * (field.cells == "sites")
        self.symmetries += (SignFlip(),) * isinstance(target, Real)
        self.symmetries += (GlobalRotations(),) * (field.cells == "sites" and isinstance(target, Circle | Sphere))
        self.symmetries += (IndependentShifts(),) * (field.cells == "sites" and isinstance(target, Circle))
        if isinstance(target, Links) and field.cells == "links":
            self.symmetries += (PointGroup(), GaugeInvariance(), ChargeConjugation(), CentreSymmetry())
        cells = math.prod(field.event_shape) // math.prod(target.shape)
        self.register_buffer("log_normaliser", torch.tensor(cells * _log_normaliser(target), dtype=dtype))

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        device, dtype = self.log_normaliser.device, self.log_normaliser.dtype
        x = self.field.random(n, _given(generator, device), dtype).to(device)
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = require_dtype(self, self.field.validate(x, values=False))
        if isinstance(self.field.target, Real):
            return -x.square().flatten(1).sum(1) / 2 - self.log_normaliser
        return -self.log_normaliser.expand(len(x))

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return -x.detach() if isinstance(self.field.target, Real) else torch.zeros_like(x)

    @classmethod
    def examples(cls) -> Iterator[White]:
        """One for every kind of target."""
        yield cls(FieldSpace(Lattice((2,))))
        yield cls(FieldSpace(Lattice((2, 3)), Real(2)), dtype=torch.float32)
        yield cls(FieldSpace(Lattice((2,)), Circle()))
        yield cls(FieldSpace(Lattice((2, 2)), Sphere(2)))


@final
class GaussianField(Distribution):
    """A translation-invariant Gaussian: independent Fourier modes with given variances.

        x = F⁻¹ √C F z, z white;   log q(x) = -½ x·F⁻¹ C⁻¹ F x - ½ Σ_k log 2π C(k)

    With the spectrum of a free field it is that field's exact distribution. Not trainable: put a
    `FourierScaling` behind it to train the spectrum. The score -F⁻¹ C⁻¹ F x is closed. Cost O(V log V).

    Args:
        field: real fields on sites; components share the spectrum.
        spectrum: variances C(k) > 0 in FFT order with C(-k) = C(k), shape (*extents), in units of field².
        dtype: of samples and densities.

    Symmetries: translations, sign flip; the point group if the spectrum has it.
    """

    spectrum: Tensor

    def __init__(self, field: FieldSpace, spectrum: Tensor, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.field = require_real_sites(field, "a Gaussian base")
        self.register_buffer("spectrum", _checked_spectrum(field.lattice, spectrum).detach().to(dtype, copy=True))
        scalar = FieldSpace(field.lattice)
        rotations = PointGroup().generators(scalar)
        isotropic = all(_invariant(self.spectrum, g.apply(self.spectrum[None], scalar)[0]) for g in rotations)
        colours = (ColourPermutations(field.target.shape[0] + 1),) if field.target.shape else ()
        self.symmetries = (Translations(), SignFlip()) + (PointGroup(),) * isotropic + colours

    @classmethod
    def free(cls, lattice: Lattice, mass_squared: float, dtype: torch.dtype = torch.float64) -> GaussianField:
        """The free field of S = Σ_x [Σ_μ (φ_{x+μ} - φ_x)² + m² φ_x²]: C(k) = 1 / 2(m² + k̂²)."""
        if not mass_squared > 0:
            raise ValueError(f"expected mass_squared > 0, got {mass_squared}: the zero mode has no Gaussian otherwise")
        return cls(FieldSpace(lattice), 0.5 / (mass_squared + lattice.laplacian_spectrum()), dtype)

    @classmethod
    def of(cls, action: Action, dtype: torch.dtype = torch.float64) -> GaussianField:
        """The best Gaussian approximation of exp(-S), or white noise where the action names none."""
        spectrum = action.gaussian_spectrum()
        return cls(action.field, torch.ones(action.field.lattice.extents) if spectrum is None else spectrum, dtype)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        device, dtype = self.spectrum.device, self.spectrum.dtype
        z = self.field.random(n, _given(generator, device), dtype).to(device)
        return multiply_modes(self.field, self.spectrum.sqrt(), z), self._log_density_of_white(z)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = require_dtype(self, self.field.validate(x, values=False))
        return self._log_density_of_white(multiply_modes(self.field, self.spectrum.rsqrt(), x))

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return -multiply_modes(self.field, 1 / self.spectrum, x.detach())

    def _log_density_of_white(self, z: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        components = math.prod(self.field.target.shape)
        return -(z.square().flatten(1).sum(1) + components * torch.log(2 * math.pi * self.spectrum).sum()) / 2

    @classmethod
    def examples(cls) -> Iterator[GaussianField]:
        """Free fields, and an anisotropic spectrum for a field of two components."""
        yield cls.free(Lattice((2,)), mass_squared=0.5)
        yield cls.free(Lattice((4, 4)), mass_squared=1.0, dtype=torch.float32)
        rectangle = Lattice((3, 4))
        first, second = (2 * math.pi * torch.arange(n) / n for n in rectangle.extents)
        yield cls(FieldSpace(rectangle, Real(2)), torch.exp(torch.outer(first.sin(), second.sin())))


def _given(generator: torch.Generator | None, device: torch.device) -> torch.Generator:
    return default_generator(device) if generator is None else generator


def default_generator(device: torch.device) -> torch.Generator:
    """torch's global generator of a device."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def _log_normaliser(target: Target) -> float:
    """Log of ∫ e^{-x²/2} over a real target, or of the total reference measure of a compact one."""
    if isinstance(target, Sphere):
        half = (target.n + 1) / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)
    if isinstance(target, Real):
        return math.prod(target.shape) / 2 * math.log(2 * math.pi)
    if isinstance(target, Circle | Links):
        return math.log(2 * math.pi) if isinstance(target, Circle) else 0.0
    raise TypeError(f"expected real numbers, circles, spheres or links of a group, got {target}: it has no flow")


def _checked_spectrum(lattice: Lattice, spectrum: Tensor) -> Tensor:
    if tuple(spectrum.shape) != lattice.extents:
        raise ValueError(f"expected one variance per mode, {lattice.extents}, got shape {tuple(spectrum.shape)}")
    if not bool(((spectrum > 0) & spectrum.isfinite()).all()):
        raise ValueError("expected positive finite variances, got others: a zero or unstable mode has no Gaussian")
    minus = tuple(tuple(-int(a == b) for a in range(lattice.dimension)) for b in range(lattice.dimension))
    mirrored = PointTransformation(minus).apply(spectrum[None], FieldSpace(lattice))[0]
    if not _invariant(spectrum, mirrored):
        raise ValueError("expected C(-k) = C(k), got a spectrum without it: real fields need an even spectrum")
    return spectrum


def _invariant(spectrum: Tensor, image: Tensor) -> bool:
    return torch.allclose(spectrum, image, rtol=1e-5, atol=0.0)
