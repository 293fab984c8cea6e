"""Spins drawn from coarse to fine by heat bath: an exact density that solves most of a spin model by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bases import default_generator
from flows.context import matched_context
from flows.distribution import Distribution, require_dtype
from flows.layers.integrated import context_columns, monomials
from flows.sampling.draws import von_mises_fisher
from flows.von_mises_fisher import log_normaliser, mean_over_field
from lattices.fields import FieldSpace, Sphere
from lattices.invariance import Symmetry
from lattices.lattice import Lattice
from lattices.multiscale import Level, Multiscale
from lattices.spins import GlobalRotations, from_vectors, require_spins, unit_vectors
from lattices.theories.on import ON
from lattices.theories.xy import XY

TENSORS = ("sites", "parents", "present", "orbits", "triples")
"""The fields of a level that follow the device."""


@final
class MultiscaleSpins(Distribution):
    """Every spin in the field of those that are there already, in the order of `lattices.multiscale.Multiscale`.

        q(s) = Π_x e^{h_x·s_x} / λ(|h_x|),    h_x = Σ_j θ_j F_j(x),    λ(h) = ∫ e^{h·s} ds

    The features F_j are O(n) vectors made of the parents: the means of s_y over an orbit of displacements y, and the
    means of s_y (s_z·s_w) over an orbit of three of the nearest. On an even lattice half of the spins come last, given
    all their neighbours: their conditional density is exact for nearest neighbours, and what is left to learn is the
    rest, with an interaction that is weaker: one decimation after the other. Densities and independent samples cost V;
    every level is an exponential family, so that its tangents ∂_θ log q are closed. Train it by `NaturalGradient`,
    alone or as the base of a flow: draws are made by rejection, and nothing is differentiated through them.

    Args:
        field: angles or unit vectors on sites.
        n_orbits: orbits of parents that a spin looks at.
        n_near: nearest parents that enter products.
        n_context: number of couplings that θ depends on, polynomially.
        context_degree: of these polynomials.
        dtype: of samples and densities.

    Symmetries: global O(n). (The order breaks translations; weights of symmetric targets stay right if samples are
    moved by random translations and rotations of the lattice afterwards.)
    References: Swendsen 1979, Phys. Rev. Lett. 42, 859 (decimation); see also `mlrg.hierarchy`.
    """

    theta: nn.Parameter
    symmetries: tuple[Symmetry, ...] = (GlobalRotations(),)
    differentiable_draws = False

    def __init__(
        self, field: FieldSpace, n_orbits: int = 8, n_near: int = 8, n_context: int = 0, context_degree: int = 2,
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.n_components, self.field = require_spins(field), field
        if field.lattice.volume < 2:
            raise ValueError(f"expected at least two sites, got {field.lattice}: one spin is White(field)")
        self.n_context, self.context_degree = n_context, context_degree
        self.order = Multiscale(field.lattice, n_orbits, n_near)
        self.levels = self.order.levels
        for number, level in enumerate(self.levels):
            for name in TENSORS:
                tensor = getattr(level, name)
                tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
                self.register_buffer(f"{name}_{number}", tensor, persistent=False)
        self.sizes = [len(level.orbits) + len(level.triples) for level in self.levels]
        rows = len(monomials(n_context, context_degree))
        self.theta = nn.Parameter(torch.zeros(rows, sum(self.sizes), dtype=dtype))

    @classmethod
    def of(
        cls, action: XY | ON, n_orbits: int = 8, n_near: int = 8, dtype: torch.dtype = torch.float64
    ) -> MultiscaleSpins:
        """With the exact field for the last half of the spins, and a guess for others: 4dβ/3 times the nearest mean."""
        if not isinstance(action, XY | ON):
            raise ValueError(f"expected XY or ON, got {action}: start from MultiscaleSpins(action.field)")
        made, strength = cls(action.field, n_orbits, n_near, dtype=dtype), 2 * len(action.extents) * action.beta
        with torch.no_grad():
            for own, level in zip(made.theta[0].split(made.sizes), made.levels):
                if level.label[0] == 0:
                    own.fill_(strength / len(level.orbits))
                    continue
                distance = _steps_between(action.field.lattice, int(level.sites[0]), int(level.parents[0, 0]))
                own[0] = 2 / 3 * (abs(strength) if distance % 2 == 0 else strength)
        return made

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        generator = default_generator(self.theta.device) if generator is None else generator
        context = matched_context(context, n, self.theta.dtype, self.n_context)
        x = self._drawn(n, context, generator)
        return x, self.log_prob(x, context)

    @torch.no_grad()
    def _drawn(self, n: int, context: Tensor | None, generator: torch.Generator) -> Tensor:  # -> (n, *event)
        s = self.theta.new_zeros(n, self.field.lattice.volume, self.n_components)
        s[:, 0] = von_mises_fisher(s[:, 0], generator)
        for number, theta in enumerate(self._thetas(context)):
            s[:, self._level(number).sites] = von_mises_fisher(self._local_field(s, number, theta), generator)
        return from_vectors(self.field, s.reshape(n, *self.field.lattice.extents, self.n_components))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        s = self._vectors(x)
        context = matched_context(context, len(x), x.dtype, self.n_context)
        total = -log_normaliser(self.n_components, x.new_zeros(len(x)))
        for number, theta in enumerate(self._thetas(context)):
            h = self._local_field(s, number, theta)
            along = (h * s[:, self._level(number).sites]).sum(-1)
            total = total + (along - log_normaliser(self.n_components, h.square().sum(-1))).sum(1)
        return total

    @torch.no_grad()
    def tangents(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch, n_parameters)
        """∂_θ log q(x) = Σ_x F_j(x)·(s_x - ⟨s_x⟩), in the order of θ."""
        s, columns = self._vectors(x), []
        context = matched_context(context, len(x), x.dtype, self.n_context)
        for number, theta in enumerate(self._thetas(context)):
            features = self._features(s, number)
            h = self._combined(theta, features)
            mean = mean_over_field(self.n_components, h.square().sum(-1, keepdim=True)) * h
            columns.append(torch.einsum("bjxc,bxc->bj", features, s[:, self._level(number).sites] - mean))
        monomial = context_columns(context, self.n_context, self.context_degree, self.theta).expand(len(x), -1)
        return torch.einsum("bm,bj->bmj", monomial, torch.cat(columns, 1)).flatten(1)

    @torch.no_grad()
    def transferred(self, lattice: Lattice) -> MultiscaleSpins:
        """These parameters on another lattice, larger and of the same shape: classes of the same spacing are copied
        orbit by orbit, coarser ones start as the coarsest of their kind here, at distances that scale; new orbits at
        zero."""
        order = Multiscale(lattice, self.order.n_orbits, self.order.n_near)
        other = MultiscaleSpins(
            FieldSpace(lattice, self.field.target), order.n_orbits, order.n_near, self.n_context, self.context_degree,
            self.theta.dtype,
        )  # fmt: skip
        own = {level.label: (level.keys, theta) for level, theta in zip(self.levels, self.theta.split(self.sizes, 1))}
        for level, new in zip(other.levels, other.theta.split(other.sizes, 1)):
            if found := order.precursor(level.label, own):
                keys, old = own[found[0]]
                places = {tuple(tuple(found[1] * n for n in y) for y in key): j for j, key in enumerate(keys)}
                for j, key in enumerate(level.keys):
                    if key in places:
                        new[:, j] = old[:, places[key]]
        return other.to(self.theta.device)

    def extra_repr(self) -> str:
        return f"{self.field.target}, {self.field.lattice}, {len(self.levels)} levels, {self.theta.numel()} parameters"

    def _level(self, number: int) -> Level:
        return self.levels[number]._replace(**{name: self.get_buffer(f"{name}_{number}") for name in TENSORS})

    def _thetas(self, context: Tensor | None) -> tuple[Tensor, ...]:  # -> (1 or batch, n_features) of each level
        columns = context_columns(context, self.n_context, self.context_degree, self.theta)
        return (columns @ self.theta).split(self.sizes, 1)

    def _vectors(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, V, n)
        x = require_dtype(self, self.field.validate(x, values=False))
        return unit_vectors(self.field, x).flatten(1, -2)

    def _local_field(self, s: Tensor, number: int, theta: Tensor) -> Tensor:  # -> (batch, sites, n)
        return self._combined(theta, self._features(s, number))

    def _combined(self, theta: Tensor, features: Tensor) -> Tensor:
        return (theta[:, :, None, None] * features).sum(1)

    def _features(self, s: Tensor, number: int) -> Tensor:  # -> (batch, n_features, sites, n)
        level = self._level(number)
        parents = s[:, level.parents] * level.present.unsqueeze(-1)  # (batch, sites, m, n)
        means = torch.einsum("km,bxmc->bkxc", level.orbits, parents)
        if not len(level.triples):
            return means
        near = parents[:, :, : level.triples.shape[1]]
        z, w = torch.triu_indices(near.shape[2], near.shape[2], 1, device=s.device)
        products = (near @ near.mT)[..., z, w]
        strengths = torch.einsum("typ,bxp->btxy", level.triples, products)
        return torch.cat([means, torch.einsum("btxy,bxyc->btxc", strengths, near)], 1)

    @classmethod
    def examples(cls) -> Iterator[MultiscaleSpins]:
        """Planar spins, three components with couplings, an odd chain, and three dimensions in single precision."""
        yield cls.of(XY(extents=(2, 2), beta=0.5))
        yield cls(FieldSpace(Lattice((2, 2)), Sphere(2)), n_context=1)
        yield cls(FieldSpace(Lattice((2,)), Sphere(3)), n_orbits=2)
        yield cls.of(ON(extents=(2, 3), n=3, beta=-0.4), dtype=torch.float32)


def _steps_between(lattice: Lattice, x: int, y: int) -> int:
    """Steps between two sites, without the periods."""
    first, second = lattice.coordinates()[[x, y]].tolist()
    return sum(abs(a - b) for a, b in zip(first, second))
