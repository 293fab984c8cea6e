"""HierarchicalFlow: fields generated from coarse to fine, with an exact likelihood at every level of blocking.

    log q(x) = log r(x_n | J) + Σ_{k < n} log q(x_k | x_{k+1}, J),     x_0 = x,   x_{k+1} = B x_k

A level is a bijection of the *fine* field that leaves B x alone: its Jacobian on fields is that on the details, and no
coordinates of the details are ever needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from flows.bases import GaussianField
from flows.bijection import Bijection
from flows.context import context_width, matched_context
from flows.distribution import Distribution, Transformed, dtype_of, require_dtype
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.spectral import multiply_modes
from flows.updates.natural import sample_tangents
from lattices.blocking import Blocking
from lattices.fields import FieldSpace
from lattices.invariance import shared_symmetries
from lattices.lattice import Lattice
from mlrg.coarsening import HAAR
from mlrg.couplings import CouplingSpace


@final
class Details(nn.Module):
    """The law of a field given its block field: q(x | c) for B x = c, a density of the details (1 - BᵀB) x.

        x = f(z),   z ~ N(0, C) conditioned on B z = c,   B f(z) = B z
        log q(x | B x) = log N(z; C) - log N(c; B C Bᵀ) - log|det ∂f/∂z|

    The Gaussian is conditioned by kriging: z = z̃ + C Bᵀ (B C Bᵀ)⁻¹ (c - B z̃). Cost V log V beside that of f.

    Args:
        base: the Gaussian of the fine field.
        bijection: a flow of the fine field with `spec.blocking`: it must keep the block field.
        blocking: B.
    """

    def __init__(self, base: GaussianField, bijection: Bijection, blocking: Blocking = HAAR) -> None:
        super().__init__()
        if base.field != bijection.domain or getattr(bijection, "blocking", None) != blocking:
            raise ValueError(f"expected a flow on {base.field} that keeps {blocking}, got {bijection}: set it so")
        lattice = base.field.lattice
        coarse = FieldSpace(blocking.coarse(lattice), base.field.target)
        self.base, self.bijection, self.blocking = base, bijection, blocking
        self.field, self.coarse, self.dimension = base.field, coarse, lattice.dimension
        self.block_base = GaussianField(coarse, blocking.spectrum(base.spectrum.double()), dtype_of(base))

    def sample_with_log_prob(
        self, c: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:  # (n, *coarse) -> (n, *event), (n,)
        """A fine field with the block field c, and log q(x | c)."""
        z = self._krige(c, generator)
        x, log_det = self.bijection(z, context)
        return x, self._base_log_prob(z, c) - log_det

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch,)
        """log q(x | B x)."""
        z, log_det = self.bijection.inverse(x, context)
        return self._base_log_prob(z, self.block(x)) + log_det

    def sample_tangents(
        self, c: Tensor, context: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A fine field, log q(x | c) and ∂_θ log q(x | c) at fixed x; needs a flow with `push_tangents`."""
        z = self._krige(c, generator)
        score = self.base.score(z) - self.blocking.up(self.block_base.score(c), self.dimension)
        pushed, tangents = self.bijection.push_tangents(z, score, context)
        return pushed.x, self._base_log_prob(z, c) - pushed.log_det, tangents

    def block(self, x: Tensor) -> Tensor:
        """B x."""
        return self.blocking.down(x, self.dimension)

    def _krige(self, c: Tensor, generator: torch.Generator | None) -> Tensor:
        z = self.base.sample(len(c), generator=generator)
        error = multiply_modes(self.coarse, 1 / self.block_base.spectrum, c - self.block(z))
        return z + multiply_modes(self.field, self.base.spectrum, self.blocking.up(error, self.dimension))

    def _base_log_prob(self, z: Tensor, c: Tensor) -> Tensor:
        return self.base.log_prob(z) - self.block_base.log_prob(c)


@final
class HierarchicalFlow(Distribution):
    """Coarse → fine: a flow of the coarsest field, then one conditional flow of details for every level.

    `marginal(k)` is the exact law of the k-times blocked field, a HierarchicalFlow of fewer levels with the same
    parameters. Context: couplings J in the range of `couplings`, handed on to every level in units of that range.

    Args:
        coarsest: the flow of the coarsest lattice.
        details: the levels, coarse → fine, each starting where the one before ends.
        couplings: the space of J, or None for a flow without couplings.
    Symmetries: translations by blocks of the coarsest cells, the point group about their centres, Z₂ or colours.
    """

    def __init__(
        self, coarsest: Transformed, details: tuple[Details, ...] = (), couplings: CouplingSpace | None = None
    ) -> None:
        super().__init__()
        spaces = [coarsest.field, *(level.field for level in details)]
        for space, level in zip(spaces, details):
            if level.coarse != space:
                raise ValueError(f"expected details on top of {space}, got {level.coarse}: order levels coarse → fine")
        self.coarsest, self.details, self.couplings = coarsest, nn.ModuleList(details), couplings
        self.n_context = max(context_width(part) for part in [coarsest, *self.details])
        if self.n_context != (len(couplings.names) if couplings else 0):
            raise ValueError(f"expected flows of {couplings} couplings, got context {self.n_context}: make them agree")
        self.field = spaces[-1]
        self.symmetries = coarsest.symmetries
        for level in details:
            lifted = tuple(level.blocking.lift(claim) for claim in self.symmetries)
            self.symmetries = shared_symmetries(lifted, level.base.symmetries, level.bijection.symmetries)

    @property
    def levels(self) -> list[Details]:
        """Coarse → fine."""
        return list(self.details)  # type: ignore[arg-type]

    def marginal(self, n_blockings: int) -> HierarchicalFlow:
        """The exact law of the field blocked that many times."""
        if not 0 <= n_blockings <= len(self.details):
            raise ValueError(f"expected 0 to {len(self.details)} blockings, got {n_blockings}: add levels for more")
        kept = self.levels[: len(self.details) - n_blockings]
        return HierarchicalFlow(self.coarsest, tuple(kept), self.couplings)

    def block(self, x: Tensor, n_blockings: int) -> Tensor:
        """The n-times blocked field of x."""
        for level in self.levels[::-1][:n_blockings]:
            x = level.block(x)
        return x

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        context = self._unit(context, n)
        x, log_prob = self.coarsest.sample_with_log_prob(n, context, generator)
        for level in self.levels:
            x, step = level.sample_with_log_prob(x, context, generator)
            log_prob = log_prob + step
        return x, log_prob

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.stack(self.level_log_probs(x, context)).sum(0)

    def level_log_probs(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:  # -> n_levels + 1 × (batch,)
        """log r(x_n) and log q(x_k | x_{k+1}) from coarse to fine: their partial sums are the marginals' log_prob."""
        x = require_dtype(self, self.field.validate(x))
        context = self._unit(context, len(x))
        terms = []
        for level in reversed(self.levels):
            terms.append(level.log_prob(x, context))
            x = level.block(x)
        return [self.coarsest.log_prob(x, context), *reversed(terms)]

    def sample_tangents(
        self, n: int, context: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples, log q(x) and ∂_θ log q(x), levels side by side: what `NaturalGradient` asks for."""
        context = self._unit(context, n)
        x, log_prob, tangents = sample_tangents(self.coarsest, n, context, generator)
        columns = [tangents]
        for level in self.levels:
            x, step, tangents = level.sample_tangents(x, context, generator)
            log_prob = log_prob + step
            columns.append(tangents)
        return x, log_prob, torch.cat(columns, 1)

    def _unit(self, context: Tensor | None, n: int) -> Tensor | None:
        context = matched_context(context, n, dtype_of(self), self.n_context)
        return context if context is None or self.couplings is None else self.couplings.unit(context)

    @classmethod
    def examples(cls) -> Iterator[HierarchicalFlow]:
        """Two Haar levels; one of decimation with a coupling, on a rectangle."""
        lattice = Lattice((4, 4))
        bases = [GaussianField.free(lattice, 1.0)]
        bases.append(GaussianField(FieldSpace(Lattice((2, 2))), Blocking().spectrum(bases[0].spectrum)))
        bases.append(GaussianField(FieldSpace(Lattice((1, 1))), Blocking().spectrum(bases[1].spectrum)))
        spec = VectorFieldSpec((0.7,), radius=1.5, n_times=2, blocking="average")
        top = Transformed(bases[2], ContinuousFlow(bases[2].field, VectorFieldSpec((0.7,), n_times=2), method="dop853"))
        yield cls(top, tuple(Details(b, ContinuousFlow(b.field, spec, method="dop853")) for b in bases[1::-1]))
        blocking, base = Blocking("decimation"), GaussianField.free(Lattice((2, 4)), 1.0)
        coarse = GaussianField(FieldSpace(Lattice((1, 2))), blocking.spectrum(base.spectrum))
        spec = VectorFieldSpec((0.7,), n_times=1, blocking="decimation", n_context=1)
        plain = VectorFieldSpec((0.7,), n_times=1, n_context=1)
        top = Transformed(coarse, ContinuousFlow(coarse.field, plain, method="dop853"))
        level = Details(base, ContinuousFlow(base.field, spec, method="dop853"), blocking)
        yield cls(top, (level,), CouplingSpace(("beta",), (0.5,), (1.5,)))
