"""PromotedStudent: the likelihood of a lattice twice as large, as the renormalization group predicts it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mlrg.couplings import CouplingSpace
from mlrg.learning import Learned
from mlrg.student import Student


@final
class PromotedStudent(Student):
    """The likelihood on a lattice twice as large, as the renormalization group itself predicts it.

        q̂(c | J) = ζ(J)^{-n} q(c/ζ(J) | M(J)),     n the number of components of c

    with the map M and the scale ζ that were learned from the smaller student q: one lesson's answer is the next
    one's statistic, and no flow of the larger lattice is needed. Matching stays unbiased whatever M has not learned.

    Args:
        student: q.
        learned: M and ζ.
        space: the couplings it is asked for; images that M carries out of the range of q are taken at its edge.
    """

    def __init__(self, student: Student, learned: Learned, space: CouplingSpace) -> None:
        extents = tuple(student.blocking.size * n for n in student.family.field.lattice.extents)
        self.family, self.space, self.blocking = student.family.on(extents), space, student.blocking
        self.n_blockings = student.n_blockings + 1
        self.student, self.learned = student, learned

    def log_prob(self, c: Tensor, couplings: Tensor) -> Tensor:
        image, log_zeta = self._step(self.space.require(couplings))
        return self.student.log_prob(c * float((-log_zeta).exp()), image) - c[0].numel() * log_zeta

    def scores(self, c: Tensor, couplings: Tensor) -> Tensor:
        couplings = self.space.require(couplings)
        image, log_zeta = self._step(couplings)
        steps = torch.autograd.functional.jacobian(lambda J: torch.cat([self._step(J)[0], self._step(J)[1]]), couplings)
        below = self.student.scores(c * float((-log_zeta).exp()), image)
        return torch.cat([below @ steps, below[:, -1:]], 1)

    def _step(self, couplings: Tensor) -> tuple[Tensor, Tensor]:  # (n,) -> (n,), (1,)
        """M(J) and log ζ(J)."""
        below = self.student.space
        unit = below.unit(self.learned.moderator(couplings[None])[0])
        image = below.centre + below.scale * unit.clamp(-1, 1)
        return image if couplings.requires_grad else image.detach(), self.learned.log_scale(couplings[None])
