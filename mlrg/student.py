"""Students: likelihoods of a blocked field on the common lattice, and the scores that couplings are matched by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from lattices.action import Family
from lattices.blocking import Blocking
from mlrg.couplings import CouplingSpace
from mlrg.teacher import Teacher


class Student(ABC):
    """The law of a field after some blockings, where teacher and student are compared.

        f_a(c; J) = ∂ log q(c | J) / ∂J_a,    f_ζ(c; J) = ∂/∂log ζ [log q(c/ζ | J) - n log ζ] at ζ = 1

    Their means vanish under q, and fitting a student by maximum likelihood means that they vanish under the teacher.
    """

    family: Family
    space: CouplingSpace
    blocking: Blocking
    n_blockings: int

    @abstractmethod
    def log_prob(self, c: Tensor, couplings: Tensor) -> Tensor:  # (n, *coarse), (n_c,) -> (n,)
        """log q(c | J)."""

    @abstractmethod
    def scores(self, c: Tensor, couplings: Tensor) -> Tensor:  # (n, *coarse), (n_c,) -> (n, n_c + 1)
        """f_a and f_ζ of blocked fields at J."""

    def block(self, x: Tensor, n_blockings: int | None = None) -> Tensor:
        """Fields on the common lattice: by default from the student's own lattice."""
        for _ in range(self.n_blockings if n_blockings is None else n_blockings):
            x = self.blocking.down(x, self.family.field.lattice.dimension)
        return x


@final
class FlowStudent(Student):
    """The exact marginal of a hierarchical flow.

    Args:
        teacher: of the student's lattice.
        n_blockings: how often its field is blocked; 0 compares whole fields.
    """

    def __init__(self, teacher: Teacher, n_blockings: int) -> None:
        self.family, self.space, self.n_blockings = teacher.family, teacher.space, n_blockings
        self.blocking = Blocking(teacher.recipe.blocking)
        self.marginal = teacher.flow.marginal(n_blockings)
        self._swift = teacher.precise(teacher.recipe.n_steps, "rk4").flow.marginal(n_blockings)

    def log_prob(self, c: Tensor, couplings: Tensor, chunk: int = 2**16) -> Tensor:
        context = self.space.require(couplings)[None]
        with torch.no_grad():
            return torch.cat([self.marginal.log_prob(part, context) for part in c.split(self._rows(chunk))])

    def scores(self, c: Tensor, couplings: Tensor, chunk: int = 2**16) -> Tensor:
        """One forward and one backward pass with the integrator of the training.

        Any function of the fields may serve as a statistic, so these need not be precise to the last digit.
        """
        couplings = self.space.require(couplings)
        return torch.cat([self._scores(part, couplings) for part in c.split(self._rows(chunk))])

    def _scores(self, c: Tensor, couplings: Tensor) -> Tensor:
        with torch.enable_grad():
            context = couplings.detach().expand(len(c), -1).clone().requires_grad_()
            c = c.detach().requires_grad_()
            by_coupling, by_field = torch.autograd.grad(self._swift.log_prob(c, context).sum(), (context, c))
        radial = (by_field * c).flatten(1).sum(1) + c[0].numel()
        return torch.cat([by_coupling, -radial[:, None]], 1).detach()

    def _rows(self, chunk: int) -> int:
        return max(1, chunk // self.marginal.field.lattice.volume)
