"""Student: the exact likelihood of a blocked field on the common lattice, and the scores that couplings are matched by."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mlrg.teacher import Teacher


@final
class Student:
    """The marginal law of a teacher's field after some blockings: where teacher and student are compared.

        f_a(c; J) = ∂ log q(c | J) / ∂J_a,    f_ζ(c; J) = ∂/∂log ζ [log q(c/ζ | J) - n log ζ] at ζ = 1

    Their means vanish under q, and fitting a student by maximum likelihood means that they vanish under the teacher.

    Args:
        teacher: of the smaller lattice.
        n_blockings: how often its field is blocked; 0 compares whole fields.
    """

    def __init__(self, teacher: Teacher, n_blockings: int) -> None:
        self.teacher, self.n_blockings = teacher, n_blockings
        self.marginal = teacher.flow.marginal(n_blockings)
        self._swift = teacher.precise(teacher.recipe.n_steps, "rk4").flow.marginal(n_blockings)

    @property
    def names(self) -> tuple[str, ...]:
        """The couplings, then "log_zeta"."""
        return (*self.teacher.space.names, "log_zeta")

    def block(self, x: Tensor) -> Tensor:
        """Its own fields on the common lattice."""
        return self.teacher.flow.block(x, self.n_blockings)

    def log_prob(self, c: Tensor, couplings: Tensor, chunk: int = 2**16) -> Tensor:  # (n, *coarse), (n_c,) -> (n,)
        """log q(c | J), exact."""
        context = self.teacher.space.require(couplings)[None]
        with torch.no_grad():
            return torch.cat([self.marginal.log_prob(part, context) for part in c.split(self._rows(chunk))])

    def scores(self, c: Tensor, couplings: Tensor, chunk: int = 2**16) -> Tensor:  # -> (n, n_couplings + 1)
        """f_a and f_ζ of blocked fields at J: one forward and one backward pass with the integrator of the training.

        Any function of the fields may serve as a statistic, so these need not be precise to the last digit.
        """
        couplings = self.teacher.space.require(couplings)
        return torch.cat([self._scores(part, couplings) for part in c.split(self._rows(chunk))])

    def _scores(self, c: Tensor, couplings: Tensor) -> Tensor:
        with torch.enable_grad():
            context = couplings.detach().expand(len(c), -1).clone().requires_grad_()
            c = c.detach().requires_grad_()
            total = self._swift.log_prob(c, context).sum()
            by_coupling, by_field = torch.autograd.grad(total, (context, c))
        radial = (by_field * c).flatten(1).sum(1) + c[0].numel()
        return torch.cat([by_coupling, -radial[:, None]], 1).detach()

    def _rows(self, chunk: int) -> int:
        return max(1, chunk // self.marginal.field.lattice.volume)
