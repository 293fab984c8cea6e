"""Gauge theories on a torus in two dimensions whose plaquettes have any class function's density: exact samples."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from flows.bases import default_generator
from flows.distribution import Distribution, dtype_of
from flows.sampling.class_functions import PlaquetteProduct, first_accepted
from lattices.exact import CharacterExpansion
from lattices.fields import FieldSpace
from lattices.gauge import GaugeTransformation, require_links

_MOST_DRAWS = 2**16


class GaugePlane(Distribution, ABC):
    """q(U) = Π_P f_1(U_P) / Z on a torus in d = 2, sampled plaquette by plaquette.

        p(A, B) = f_V(A B A⁻¹ B⁻¹) / Z',    p(P | rest) ∝ f_1(P) f_{n-1}(P⁻¹ G)

    with f_n the density of the product of n plaquettes and G what the n plaquettes still to come must multiply to:
    first the two holonomies, then the plaquettes, all by rejection and therefore exact; then the links of a maximal
    tree are 1, the others follow, and a random gauge transformation makes all of them Haar-distributed. Cost V; the
    last plaquettes take some f_1(1) proposals. Descendants give `log_prob`.

    Args:
        field: links of U(1) or SU(N) on two axes.
        expansion: the characters of f_1.
        draw: (n, generator) -> (n, *element), exact draws of f_1.

    References: Migdal 1975, Sov. Phys. JETP 42, 413 (the solution by characters).
    """

    def __init__(
        self, field: FieldSpace, expansion: CharacterExpansion, draw: Callable[[int, torch.Generator], Tensor]
    ) -> None:
        super().__init__()
        self.field, self.group = field, require_links(field)
        self._product, self._draw = partial(PlaquetteProduct, self.group, expansion), draw

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        if n < 1:
            raise ValueError(f"expected n >= 1 fields, got {n}: ask for at least one")
        like = next(self.buffers())
        generator = default_generator(like.device) if generator is None else generator
        x = self._links(*self._loops(n, generator))
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        x = self.field.act(GaugeTransformation(seed), x)
        dtype = dtype_of(self)
        x = x.to(device=like.device, dtype=dtype.to_complex() if x.is_complex() else dtype)
        return x, self.log_prob(x)

    def _loops(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Holonomies (n, 2, *element) and plaquettes (n, V, *element) with Π_k P_k = A B A⁻¹ B⁻¹."""
        holonomies, rest = self._holonomies(n, generator)
        plaquettes = []
        volume = self.field.lattice.volume
        draws = _Supply(lambda m: self._draw(m, generator), min(n * volume, _MOST_DRAWS))
        for n_left in range(volume - 1, 0, -1):
            chance = partial(self._chance_of_the_rest, self._product(n_left))
            p = first_accepted(rest, draws.take, chance, generator)
            plaquettes.append(p)
            rest = self.group.compose(self.group.inverse(p), rest)
        return holonomies, torch.stack([*plaquettes, rest], 1)

    def _holonomies(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Loops around the torus, and their commutators."""
        product = self._product(self.field.lattice.volume)
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


class _Supply:
    """Draws made many at a time and handed out in order."""

    def __init__(self, draw: Callable[[int], Tensor], size: int) -> None:
        self.draw, self.size, self.stock = draw, size, draw(size)

    def take(self, n: int) -> Tensor:  # -> (n, *element)
        if n > len(self.stock):
            self.stock = torch.cat([self.stock, self.draw(max(n, self.size))])
        taken, self.stock = self.stock[:n], self.stock[n:]
        return taken
