"""The smallest flow that can learn something, and a target it can represent exactly: for tests of learning."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flows.bijection import Bijection, Chain, Scored
from flows.distribution import Distribution, Transformed
from flows.updates.update import Problem
from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import Sign
from lattices.lattice import Lattice

FIELD = FieldSpace(Lattice((2, 2)))


class Affine(Bijection):
    """x = e^a z + b, elementwise."""

    domain = codomain = FIELD

    def __init__(self, log_scale: float = 0.3, shift: float = 0.2) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full(FIELD.event_shape, log_scale, dtype=torch.float64))
        self.shift = nn.Parameter(torch.full(FIELD.event_shape, shift, dtype=torch.float64))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.log_scale.exp() * z + self.shift, self.log_scale.sum().expand(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (x - self.shift) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(x))

    @classmethod
    def examples(cls) -> Iterator[Affine]:
        yield cls()


class SinhArcsinh(Bijection):
    """x = sinh((asinh z + e) / d), elementwise: skewed and heavy-tailed."""

    domain = codomain = FIELD

    def __init__(self) -> None:
        super().__init__()
        self.skew, self.log_tail = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (0.2, 0.1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = (z.asinh() + self.skew) * (-self.log_tail).exp()
        return u.sinh(), (u.cosh().log() - self.log_tail - z.square().log1p() / 2).flatten(1).sum(1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u = x.asinh() * self.log_tail.exp() - self.skew
        return u.sinh(), (u.cosh().log() + self.log_tail - x.square().log1p() / 2).flatten(1).sum(1)

    @classmethod
    def examples(cls) -> Iterator[SinhArcsinh]:
        yield cls()


class WrongScore(Bijection):
    """Affine ∘ SinhArcsinh whose push_score forgets the log-det: a path gradient must notice."""

    domain = codomain = FIELD

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain(Affine(), SinhArcsinh())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.chain(z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.chain.inverse(x)

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        with torch.no_grad():
            x, log_det = self(z)
        with torch.enable_grad():
            y = x.clone().requires_grad_()
            return Scored(x, log_det, torch.autograd.grad((score * self.inverse(y)[0]).sum(), y)[0])


class Normal(Distribution):
    """Independent normal variables of a trainable width; `recorded` latents replace random ones when given."""

    field = FIELD

    def __init__(self, trainable: bool = False) -> None:
        super().__init__()
        self.log_width = nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=trainable)
        self.recorded: Tensor | None = None

    def sample_with_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        dtype, device = self.log_width.dtype, self.log_width.device
        noise = torch.randn((n, *FIELD.event_shape), generator=generator, dtype=dtype, device=device)
        z = (noise if self.recorded is None else self.recorded) * self.log_width.exp()
        return z, self.log_prob(z)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        width = self.log_width.exp()
        return torch.distributions.Normal(torch.zeros_like(width), width).log_prob(x).flatten(1).sum(1)


class Quadratic(Action):
    """S = ½ m Σ (x - c)² with c = 1 and m = 4: what an affine map of white noise can represent."""

    field = FIELD
    symmetries = ()
    mass_squared, centre = 4.0, 1.0

    @property
    def broken(self) -> Transformation:
        return Sign()

    def energy(self, x: Tensor) -> Tensor:
        return self.mass_squared * (x - self.centre).square().flatten(1).sum(1) / 2

    @classmethod
    def examples(cls) -> Iterator[Quadratic]:
        yield cls()


def problem(*layers: Bijection, trainable_base: bool = False) -> Problem:
    """The quadratic action and a flow of these layers (an affine one by default)."""
    return Problem(Transformed(Normal(trainable_base), Chain(*(layers or (Affine(),)))), Quadratic())


def optimum() -> Problem:
    """The flow that represents its target exactly."""
    return problem(Affine(-torch.tensor(Quadratic.mass_squared).double().log().item() / 2, Quadratic.centre))


def gradient(of: Problem, value: Tensor) -> Tensor:
    """The gradient with respect to all trainable parameters, flat, leaving `.grad` alone."""
    parameters = [p for p in of.flow.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
