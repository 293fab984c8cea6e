"""Sampling in the latent space of a flow, where a good flow has made the target simple."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.bijection import Bijection
from flows.distribution import require_dtype
from flows.sampling.kernel import Info, Kernel, State
from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import Symmetry


@dataclass(frozen=True, eq=False)
class PulledBack(Action):
    """An action seen through a bijection: if z has weight e^{-S'}, then x = f(z) has weight e^{-S}.

        S'(z) = S(f(z)) - log|det ∂f/∂z|

    Both have the same partition function. For an ideal flow S' is the action of the base. An energy costs one
    forward pass, a force its gradient.

    Args:
        action: S, on the codomain of `bijection`.
        bijection: f, latent → field.
        context: couplings of a conditional bijection, shape (n_couplings,); None for none.

    Symmetries: those of both the action and the bijection.
    """

    action: Action
    bijection: Bijection
    context: Tensor | None = None

    def __post_init__(self) -> None:
        if self.bijection.codomain != self.action.field:
            raise ValueError(
                f"expected a bijection into {self.action.field}, got one into {self.bijection.codomain}: "
                "build both on the same lattice"
            )
        if self.context is not None and self.context.ndim != 1:
            raise ValueError(f"expected a context (n_couplings,), got {tuple(self.context.shape)}: pass one J")

    @property
    def field(self) -> FieldSpace:
        return self.bijection.domain

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return tuple(s for s in self.action.symmetries if s in self.bijection.symmetries)

    @property
    def broken(self) -> Transformation:
        return self.action.broken

    def energy(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        field, log_det = self.push(x)
        return self.action.energy(field) - log_det

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:  # (batch, *event) -> (batch, *event), (batch,)
        """x = f(z) and its log-det, at the context."""
        return self.bijection(z, self._context(z))

    def pull(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
        """z = f⁻¹(x), at the context."""
        return self.bijection.inverse(x, self._context(x))[0]

    def _context(self, x: Tensor) -> Tensor | None:
        return None if self.context is None else self.context.to(x).expand(len(x), -1)

    @classmethod
    def examples(cls) -> Iterator[PulledBack]:
        """φ⁴ in the latent space of a Fourier layer, without and with couplings."""
        from flows.layers.fourier import FourierScaling
        from lattices.theories.phi4 import Phi4

        action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        yield cls(action, FourierScaling(action.field))
        yield cls(action, FourierScaling(action.field, n_context=2), torch.tensor([0.5, -1.0], dtype=torch.float64))


@dataclass(frozen=True)
class Latent(Kernel):
    """Any kernel for a pulled-back action, moving z, while the state shows the field x = f(z) and its energy S(x).

    Costs one forward pass more than the kernel it wraps.

    Args:
        pulled_back: the action S' in the latent space.
        kernel: a kernel with stationary density e^{-S'}, e.g. HMC(pulled_back, 0.1, 10).
    """

    pulled_back: PulledBack
    kernel: Kernel

    @torch.no_grad()
    def init(self, x: Tensor) -> State:
        x = require_dtype(self.pulled_back.bijection, self.pulled_back.action.field.validate(x))
        return self._show(self.kernel.init(self.pulled_back.pull(x)))

    @torch.no_grad()
    def step(self, state: State, generator: torch.Generator) -> tuple[State, Info]:
        inner, info = self.kernel.step(_hidden(state), generator)
        return self._show(inner), info

    def adapt(self, state: State, n_steps: int, generator: torch.Generator) -> tuple[Latent, State]:
        kernel, inner = self.kernel.adapt(_hidden(state), n_steps, generator)
        return Latent(self.pulled_back, kernel), self._show(inner)

    @torch.no_grad()
    def _show(self, inner: State) -> State:
        """The state of the field, with the latent state carried along."""
        x, log_det = self.pulled_back.push(inner.x)
        return State(x, inner.energy + log_det, (inner.x, inner.energy, *inner.extra))

    @classmethod
    def examples(cls) -> Iterator[Latent]:
        """HMC for φ⁴ in the latent space of a Fourier layer."""
        from flows.sampling.hmc import HMC

        for pulled_back in PulledBack.examples():
            yield cls(pulled_back, HMC(pulled_back, step_size=0.1, n_steps=5))


def _hidden(state: State) -> State:
    """The latent state inside the extra tensors of a shown one."""
    z, energy, *extra = state.extra
    return State(z, energy, tuple(extra))
