"""Lesson: teacher and student matched at one J. It solves for the couplings J' and the field scale ζ of the student.

    0 = E_teacher(J)[f(c/ζ)] - E_student(J')[f(c)],    f = ∂ log q_student(c | J') / ∂(J', log ζ)

is the stationarity of KL(teacher ‖ student) on the common blocked lattice with *both* means taken under the true
actions: by reweighting, or on Markov chains. Whatever the flows have not learned makes f less sharp and leaves the
answer true, as long as f tells couplings apart: a flow that has learned nothing may show a second root. With perfect
flows f is the efficient score. Where the student cannot imitate the teacher, the answer depends on f by that much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mlrg.couplings import CouplingSpace
from mlrg.ensembles import Ensemble, chain_sums
from mlrg.residual import residual_kl
from mlrg.student import Student

Draw = Callable[[Tensor, torch.Generator], Ensemble]
"""Fields of one lattice at couplings J (n_couplings,)."""


class Lesson(NamedTuple):
    """What one J teaches: the image (J', log ζ), its derivative in J, and bootstrap replicates of both.

    `metric` is the Fisher information of (J', log ζ) per common field: KL(J' + δ) - KL(J') = ½ δᵀ metric δ.
    """

    couplings: Tensor  # (n,)
    image: Tensor  # (n + 1,): J', log ζ
    jacobian: Tensor  # (n + 1, n): ∂(J', log ζ)/∂J
    metric: Tensor  # (n + 1, n + 1)
    images: Tensor  # (n_replicates, n + 1)
    jacobians: Tensor  # (n_replicates, n + 1, n)
    odd: Tensor  # (n_replicates + 1,): ∂h'/∂h, the first from all samples
    residual: Tensor  # (2,): residual KL in nats and its error
    ess: Tensor  # (2,): teacher, student
    extent: int
    n_blockings: int
    matched: Tensor = torch.zeros(4, 0)  # total block field of teacher (over ζ) and student, each with weights
    curve: Tensor = torch.zeros(2, 0)  # c and the student's likelihood, where one real number is compared

    @property
    def covariance(self) -> Tensor:  # -> (n + 1, n + 1)
        """Of the image, from the replicates."""
        return torch.atleast_2d(torch.cov(self.images.T))


@dataclass(frozen=True)
class Matching:
    """How a lesson is solved.

    Args:
        n_replicates: of the bootstrap over chains (or independent samples).
        smallest_ess: refuse ensembles whose effective fraction is below.
        rounds: at most so many fresh student ensembles.
        first_look: fraction of the fields that the first round looks at.
        overlap: the last student ensemble keeps this fraction of its effective size at the image.
    """

    n_replicates: int = 100
    smallest_ess: float = 0.02
    rounds: int = 6
    first_look: float = 0.25
    overlap: float = 0.7

    def __post_init__(self) -> None:
        if self.n_replicates < 2 or self.rounds < 2 or not 0 <= self.smallest_ess < 1 or not 0 < self.overlap < 1:
            raise ValueError(f"expected n_replicates > 1, rounds > 1, fractions between 0 and 1, got {self}: change it")


def teach(
    couplings: Tensor,
    teacher: Draw,
    student: Student,
    draw_student: Draw,
    generator: torch.Generator,
    *,
    start: Tensor | None = None,
    matching: Matching = Matching(),
) -> Lesson:
    """Match one J.

    Args:
        couplings: J of the teacher (n,).
        teacher, draw_student: ensembles of the larger and the smaller lattice.
        student: the likelihood that is matched by.
        start: first guess of J' (n,); J itself if None.
    """
    large = _trusted(teacher(couplings, generator), couplings, "teacher", matching)
    image = torch.cat([couplings if start is None else start, couplings.new_full((1,), math.nan)])
    for k in range(matching.rounds):
        whole = large if k else large.part(matching.first_look)
        blocked = student.block(whole.x, student.n_blockings + 1)
        image[:-1] = _inside(student.space, image[:-1])
        at = image[:-1].clone()
        small = _trusted(draw_student(at, generator), at, "student", matching)
        small = small if k else small.part(matching.first_look)
        if image[-1].isnan():
            image[-1] = _first_scale(blocked, whole.weights(couplings), student.block(small.x), small.weights(at))
        image, moments = _solve(_Pair.of(whole, blocked, couplings, small, student, image), image)
        overlap = small.ess(_inside(student.space, image[:-1])) / small.ess(at)
        if k and overlap > matching.overlap and _interior(student.space, image[:-1]):
            break
    else:
        raise ValueError(
            f"expected a match inside the trained region in {matching.rounds} rounds, got J' = {image[:-1].tolist()} "
            f"at J = {couplings.tolist()}: widen the student's couplings, or teach nearer to the fixed point"
        )
    shifts, jacobians, odd = moments.replicate(matching.n_replicates, generator)
    own = student.block(small.x)
    residual = residual_kl((large, blocked, couplings), (small, own, image[:-1]), float(image[-1]))
    ess = torch.tensor([large.ess(couplings), small.ess(image[:-1])], dtype=torch.float64)
    sides = (blocked, large.weights(couplings)), (own, small.weights(image[:-1]))
    return Lesson(
        couplings, image, moments.jacobian(), moments.metric(), image + shifts - shifts.mean(0), jacobians,
        torch.cat([moments.odd()[None], odd]), torch.tensor([residual.value, residual.error], dtype=torch.float64),
        ess, large.family.field.lattice.extents[0], student.n_blockings,
        *_matched(*sides, image, student),
    )  # fmt: skip


def _matched(
    teacher: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], image: Tensor, student: Student, n: int = 4000
) -> tuple[Tensor, Tensor]:
    """What a figure of the match needs: up to n totals of each side, and the student's likelihood on a grid."""
    rows = []
    for (c, weights), scale in ((teacher, float(image[-1].exp())), (own, 1.0)):
        total = c.reshape(len(c), -1).sum(1) / scale
        kept = torch.linspace(0, len(c) - 1, min(n, len(c))).long()
        rows += [total[kept], weights[kept] / weights[kept].sum()]
    if own[0][0].numel() > 1:
        return torch.stack(rows), torch.zeros(2, 0)
    reach = 1.2 * float(rows[2].abs().max())
    grid = torch.linspace(-reach, reach, 201, dtype=own[0].dtype)
    density = student.log_prob(grid.reshape(-1, *own[0].shape[1:]), image[:-1]).exp()
    return torch.stack(rows), torch.stack([grid, density])


class _Pair(NamedTuple):
    """Two ensembles and the statistic f at the couplings and the scale that the student was drawn at.

    The teacher's f(c/ζ) is interpolated in log ζ by a parabola through three scales.
    """

    large: Ensemble
    blocked: Tensor
    couplings: Tensor
    small: Ensemble
    own: Tensor
    own_scores: Tensor
    scores: tuple[Tensor, Tensor, Tensor]
    log_scale: float
    weights: Tensor
    operators: Tensor

    @classmethod
    def of(
        cls, large: Ensemble, blocked: Tensor, couplings: Tensor, small: Ensemble, student: Student, image: Tensor
    ) -> _Pair:
        at, centre, own = image[:-1].clone(), float(image[-1]), student.block(small.x)
        low, middle, high = (student.scores(blocked * math.exp(-centre - h), at) for h in (-_SPAN, 0.0, _SPAN))
        bend = (high - 2 * middle + low) / (2 * _SPAN**2)
        terms = (middle, (high - low) / (2 * _SPAN), bend)
        weights, operators = large.weights(couplings), large.operators(couplings)
        return cls(large, blocked, couplings, small, own, student.scores(own, at), terms, centre, weights, operators)

    def teacher_scores(self, log_zeta: float) -> tuple[Tensor, Tensor]:
        """f(c/ζ) and its derivative in log ζ."""
        u = log_zeta - self.log_scale
        value, slope, bend = self.scores
        return value + u * slope + u * u * bend, slope + 2 * u * bend


_SPAN = 0.05  # of the parabola in log ζ


def _solve(pair: _Pair, image: Tensor, n_steps: int = 8) -> tuple[Tensor, _Moments]:
    """The solution (J', log ζ) by Newton steps with the fields kept and reweighted, and the moments there.

    A step in the scale is held within two spans; fields that hardly overlap with the image end the round.
    """
    moments = _Moments.measure(pair, image)
    for _ in range(n_steps):
        step = moments.solve()
        step = step * min(1.0, 2 * _SPAN / max(1e-300, float(step[-1].abs())))
        if pair.small.ess(image[:-1] + step[:-1]) < 0.1 * pair.small.ess(image[:-1]):
            return image + step, moments
        image = image + step
        moments = _Moments.measure(pair, image)
        if bool((step.abs() < 1e-6 * (1 + image.abs())).all()):
            break
    return image, moments


class _Moments(NamedTuple):
    """Weighted sums, one row per chain, of 1, f, O and their products for both lattices: all that a solution needs."""

    large: Tensor  # (n_chains, columns)
    small: Tensor
    scale: Tensor  # (n + 1,): R_ζ = ∂R/∂log ζ
    log_zeta: float
    n: int

    @classmethod
    def measure(cls, pair: _Pair, image: Tensor) -> _Moments:
        first, slope = pair.teacher_scores(float(image[-1]))
        own_weights = pair.small.weights(image[:-1])
        return cls(
            _products(first, pair.operators, pair.blocked, pair.large, pair.weights),
            _products(pair.own_scores, pair.small.operators(image[:-1]), pair.own, pair.small, own_weights),
            pair.weights @ slope,
            float(image[-1]),
            len(pair.couplings),
        )

    def solve(self) -> Tensor:
        """The Newton step of (J', log ζ)."""
        return _newton(self.large.sum(0), self.small.sum(0), self.scale, self.n)

    def jacobian(self) -> Tensor:  # -> (n + 1, n)
        """∂(J', log ζ)/∂J by linear response."""
        return _response(self.large.sum(0), self.small.sum(0), self.scale, self.n)

    def odd(self) -> Tensor:
        """∂h'/∂h of a source coupled to the field, by linear response at h = 0."""
        return math.exp(-self.log_zeta) * _odd(self.large.sum(0), self.small.sum(0), self.scale.new_zeros(self.n + 1))

    def metric(self) -> Tensor:
        """Cov(f) in the student's ensemble."""
        mean, product, _ = _unpack(self.small.sum(0), self.n)
        return product - torch.outer(mean, mean)

    def replicate(self, n_replicates: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Newton steps, Jacobians and odd responses of bootstrap resamples of the chains of both lattices."""
        draws = [_resampled(rows, n_replicates, generator) for rows in (self.large, self.small)]
        pairs = list(zip(*draws))
        steps = torch.stack([_newton(a, b, self.scale, self.n) for a, b in pairs])
        jacobians = torch.stack([_response(a, b, self.scale, self.n) for a, b in pairs])
        odd = torch.stack([_odd(a, b, step) for (a, b), step in zip(pairs, steps - steps.mean(0))])
        return steps, jacobians, odd * math.exp(-self.log_zeta)


def _products(scores: Tensor, operators: Tensor, blocked: Tensor, ensemble: Ensemble, weights: Tensor) -> Tensor:
    """Per chain: Σ w (1, f, f fᵀ, O, f Oᵀ, M·X, M·X O), M and X the sums of the common and of the whole field."""
    volume = tuple(range(1, 1 + ensemble.family.field.lattice.dimension))
    magnetisation = (blocked.sum(volume) * ensemble.x.sum(volume)).reshape(len(blocked), -1).sum(1, keepdim=True)
    outer = (scores[:, :, None] * scores[:, None]).flatten(1)
    mixed = (scores[:, :, None] * operators[:, None]).flatten(1)
    last = (magnetisation, magnetisation * operators)
    columns = torch.cat([torch.ones_like(magnetisation), scores, outer, operators, mixed, *last], 1)
    return chain_sums(columns * weights[:, None], ensemble.chain)


def _means(sums: Tensor, n: int) -> tuple[Tensor, ...]:
    """⟨1⟩, ⟨f⟩, ⟨f fᵀ⟩, ⟨O⟩, ⟨f Oᵀ⟩, ⟨M·X⟩, ⟨M·X O⟩ from one row of sums."""
    return (sums / sums[0]).split([1, n + 1, (n + 1) ** 2, n, (n + 1) * n, 1, n])


def _unpack(sums: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """⟨f⟩, ⟨f fᵀ⟩ and Cov(f, O) from one row of sums."""
    _, mean, outer, operator, mixed, _, _ = _means(sums, n)
    return mean, outer.reshape(n + 1, n + 1), mixed.reshape(n + 1, n) - torch.outer(mean, operator)


def _system(small: Tensor, scale: Tensor, n: int) -> Tensor:
    """-∂R/∂(J', log ζ) with R = ⟨f⟩_teacher - ⟨f⟩_student: ∂⟨f⟩_student/∂J' = -Cov(f, O)."""
    return -torch.cat([_unpack(small, n)[2], scale[:, None]], 1)


def _newton(large: Tensor, small: Tensor, scale: Tensor, n: int) -> Tensor:
    residual = _unpack(large, n)[0] - _unpack(small, n)[0]
    try:
        return torch.linalg.solve(_system(small, scale, n), residual)
    except torch.linalg.LinAlgError as error:
        raise ValueError("expected a student that depends on its couplings, got one that does not: train it") from error


def _response(large: Tensor, small: Tensor, scale: Tensor, n: int) -> Tensor:
    return torch.linalg.solve(_system(small, scale, n), -_unpack(large, n)[2])


def _odd(large: Tensor, small: Tensor, step: Tensor) -> Tensor:
    """⟨M·X⟩_teacher / ⟨M·X⟩_student, the student and ζ moved by a step of (J', log ζ) to first order."""
    n = len(step) - 1
    _, _, _, operator, _, own, mixed = _means(small, n)
    slope = mixed / own - operator  # -∂ log⟨M·X⟩/∂J'
    return (_means(large, n)[5] / own)[0] * (slope @ step[:-1] - step[-1]).exp()


def _resampled(rows: Tensor, n_replicates: int, generator: torch.Generator) -> Tensor:  # -> (n_replicates, columns)
    draws = torch.randint(len(rows), (n_replicates, len(rows)), generator=generator)
    counts = rows.new_zeros(n_replicates, len(rows)).scatter_add_(1, draws, rows.new_ones(draws.shape))
    return counts @ rows


def _first_scale(blocked: Tensor, weights: Tensor, own: Tensor, own_weights: Tensor) -> float:
    """log ζ that matches the second moments."""
    large, small = (w @ c.square().flatten(1).mean(1) for c, w in ((blocked, weights), (own, own_weights)))
    return 0.5 * math.log(float(large / small))


def _inside(space: CouplingSpace, couplings: Tensor) -> Tensor:
    """The nearest couplings that the student knows."""
    return space.centre + space.scale * space.unit(couplings).clamp(-1, 1)


def _interior(space: CouplingSpace, couplings: Tensor) -> bool:
    return bool((space.unit(couplings).abs() < 1 - 1e-9).all())


def _trusted(ensemble: Ensemble, couplings: Tensor, role: str, matching: Matching) -> Ensemble:
    ess = ensemble.ess(couplings)
    if not ess >= matching.smallest_ess:
        raise ValueError(
            f"expected an effective sample fraction of {matching.smallest_ess} or more for the {role} at "
            f"{couplings.tolist()}, got {ess:.2g}: train it longer, or correct its lessons by chains (source='chains')"
        )
    return ensemble
