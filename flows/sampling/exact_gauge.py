"""Independent samples of two-dimensional gauge theory: no Markov chain, no frozen charge, exact density."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import final

import torch
from torch import Tensor

from flows.bases import default_generator
from flows.distribution import Distribution, require_dtype
from flows.sampling.class_functions import OnePlaquette, PlaquetteProduct, first_accepted, order_of
from lattices.exact import gauge_torus_log_z
from lattices.gauge import GaugeTransformation, require_links
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge


@final
class ExactPlane(Distribution):
    """e^{-S} / Z of Wilson's action on a torus in d = 2, sampled plaquette by plaquette.

        p(A, B) = f_V(A B A⁻¹ B⁻¹) / Z',    p(P | rest) ∝ f_1(P) f_{n-1}(P⁻¹ G)

    with f_n the density of the product of n plaquettes and G what the n plaquettes still to come must multiply to:
    first the two holonomies, then the plaquettes, all by rejection and therefore exact; then the links of a maximal
    tree are 1, the others follow, and a random gauge transformation makes all of them Haar-distributed. The oracle
    for samplers that freeze, at any β and V. Cost V; the last plaquettes take some f_1(1) = e^β / c₀ proposals.

    Args:
        action: U(1) or SU(N) with `rectangle` 0 on two axes.
        dtype: real type of densities and samples (complex partner for SU(N)).

    Symmetries: those of the action.
    References: Migdal 1975, Sov. Phys. JETP 42, 413 (the solution by characters).
    """

    log_z: Tensor

    def __init__(self, action: U1Gauge | SUNGauge, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if not isinstance(action, U1Gauge | SUNGauge):
            raise TypeError(f"expected U1Gauge or SUNGauge, got {type(action).__name__}: other theories are not solved")
        if len(action.extents) != 2 or action.rectangle:
            raise ValueError(f"expected two dimensions and rectangle = 0, got {action}: others are not solved")
        self.action, self.field, self.symmetries = action, action.field, action.symmetries
        self.group = require_links(self.field)
        log_z = gauge_torus_log_z(action.extents, order_of(self.group), action.beta)
        self.register_buffer("log_z", torch.tensor(log_z, dtype=dtype))
        self._plaquette = OnePlaquette(self.group, action.beta)

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        if n < 1:
            raise ValueError(f"expected n >= 1 fields, got {n}: ask for at least one")
        generator = default_generator(self.log_z.device) if generator is None else generator
        x = self._links(*self._loops(n, generator))
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        x = self.field.act(GaugeTransformation(seed), x)
        x = x.to(device=self.log_z.device, dtype=self.log_z.dtype.to_complex() if x.is_complex() else self.log_z.dtype)
        return x, self.log_prob(x)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        x = require_dtype(self, self.field.validate(x, values=False))
        return -self.action.energy(x) - self.log_z

    def score(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch, *event)
        return self.action.force(x.detach())

    def _loops(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Holonomies (n, 2, *element) and plaquettes (n, V, *element) with Π_k P_k = A B A⁻¹ B⁻¹."""
        holonomies, rest = self._holonomies(n, generator)
        plaquettes = []
        for n_left in range(self.field.lattice.volume - 1, 0, -1):
            product = PlaquetteProduct(self.group, self.action.beta, n_left)
            chance = partial(self._chance_of_the_rest, product)
            p = first_accepted(rest, partial(self._plaquette.draw, generator=generator), chance, generator)
            plaquettes.append(p)
            rest = self.group.compose(self.group.inverse(p), rest)
        return holonomies, torch.stack([*plaquettes, rest], 1)

    def _holonomies(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Loops around the torus, and their commutators."""
        product = PlaquetteProduct(self.group, self.action.beta, self.field.lattice.volume)
        shape = self.group.element_shape
        pairs = first_accepted(
            torch.zeros(n, device=generator.device),
            lambda m: self.group.random(2 * m, generator).reshape(m, 2, *shape),
            lambda pair, _: product.chance(self._commutator(pair)),
            generator,
        )
        return pairs, self._commutator(pairs)

    def _commutator(self, pair: Tensor) -> Tensor:  # (n, 2, *element) -> (n, *element)
        (a, b), inverse = pair.unbind(1), self.group.inverse
        return self.group.compose(self.group.compose(a, b), self.group.compose(inverse(a), inverse(b)))

    def _chance_of_the_rest(self, product: PlaquetteProduct, p: Tensor, goal: Tensor) -> Tensor:
        return product.chance(self.group.compose(self.group.inverse(p), goal))

    def _links(self, holonomies: Tensor, plaquettes: Tensor) -> Tensor:  # -> (n, *event)
        """The links with these plaquettes, P_1 … P_V from the last column down, in the gauge of a maximal tree.

        U_0(x, 0) = 1 but for the last x, U_1(x, y) = 1 but for the last y.
        """
        group, (columns, rows) = self.group, self.field.lattice.extents
        p = plaquettes.unflatten(1, (columns, rows)).flip(1)
        first = group.identity().to(p).expand(p[:, :, 0].shape).clone()
        first[:, -1] = holonomies[:, 0]
        u0 = [first]
        for y in range(rows - 1):
            u0.append(group.compose(group.inverse(p[:, :, y]), u0[-1]))
        top = group.compose(group.inverse(u0[-1]), p[:, :, -1])
        u1 = [holonomies[:, 1]]
        for x in range(columns - 1):
            u1.append(group.compose(group.compose(top[:, x], u1[-1]), first[:, x]))
        second = group.identity().to(p).expand(p.shape).clone()
        second[:, :, -1] = torch.stack(u1, 1)
        return torch.stack([torch.stack(u0, 2), second], 1)

    @classmethod
    def examples(cls) -> Iterator[ExactPlane]:
        """U(1) in both precisions, and SU(2)."""
        yield cls(U1Gauge(extents=(2, 3), beta=0.8))
        yield cls(SUNGauge(extents=(2, 2), n=2, beta=1.0))
        yield cls(U1Gauge(extents=(2, 2), beta=1.0), dtype=torch.float32)
