"""The exact step of the renormalization group: the student nearest to the teacher, and its derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd

from mlrg.cluster.plaquette import Plaquette, plaquette

BRANCHES = ("covariant", "free")


@dataclass(frozen=True)
class ExactStep:
    """J' = argmin KL(teacher(J) ‖ student(J')) by enumeration, no network and no sampling: the oracle.

        log P(o) = log W(o₀o₁o₂o₃) + e log W(o₂o₃o₀o₁) - log Z

    e is the environment: with e = 0 the plaquette stands alone, with e = 1 it lies on the smallest torus, where every
    outer spin meets a second plaquette of the same kind; between, that plaquette counts with a power.

    Names of hidden spins are a freedom. The branch says how it is removed: "covariant" admits a J' only if every
    relabelling g (the same on edges and vertices) that keeps J keeps J', so J'(gJ) = gJ'(J) is a smooth
    single-valued map; "free" takes a minimum over all couplings and the names nearest to J, and may break the
    relabelling symmetry of J. Cost of a Newton iteration: n² N⁵.

    Args:
        plaquette: the model.
        environment: e >= 0.
        branch: "covariant" or "free".
    """

    plaquette: Plaquette
    environment: float = 0.0
    branch: str = "covariant"

    def __post_init__(self) -> None:
        if not 0 <= self.environment < float("inf"):
            raise ValueError(f"expected an environment >= 0, got {self.environment}: 0 is open, 1 the smallest torus")
        if self.branch not in BRANCHES:
            raise ValueError(f"expected a branch of {', '.join(BRANCHES)}, got {self.branch!r}: choose one")

    def divergence(self, J: Tensor, J_student: Tensor) -> Tensor:  # (..., n), (..., n) -> (...)
        """KL(teacher(J) ‖ student(J')) in nats, in the environment."""
        p = self._log_probability(self.plaquette.teacher(J))
        q = self._log_probability(self.plaquette.student(J_student))
        return (p.exp() * (p - q)).sum(-1)

    def __call__(self, J: Tensor, tolerance: float = 1e-11) -> Tensor:  # (n,) -> (n,)
        """The couplings J' of the nearest student, on the branch that continues J."""
        directions = self.directions(J)

        def loss(y: Tensor) -> Tensor:
            return self.divergence(J, directions @ y)

        found = directions @ minimise(loss, directions.mT @ J, tolerance)
        return self.nearest_names(found, J) if self.branch == "free" else found

    def jacobian(self, J: Tensor, J_student: Tensor) -> Tensor:  # (n,), (n,) -> (n, n)
        """∂J'/∂J = -(∂²KL/∂J'²)⁻¹ ∂²KL/∂J'∂J along the admitted directions (implicit function theorem)."""
        directions = self.directions(J)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return self.divergence(J + directions @ x, J_student + directions @ y)

        here = J.new_zeros(directions.shape[1])
        curvature = hessian(loss, argnums=1)(here, here)
        mixed = jacfwd(grad(loss, argnums=1), argnums=0)(here, here)
        inverse = torch.linalg.pinv(curvature, rtol=1e-10, hermitian=True)
        return -directions @ inverse @ mixed @ directions.mT

    def directions(self, J: Tensor) -> Tensor:  # (n,) -> (n, m)
        """An orthonormal basis of the couplings that J' may have."""
        identity = torch.eye(len(J), dtype=J.dtype, device=J.device)
        if self.branch == "free":
            return identity
        bond, scale = self.plaquette.bond, 1 + J.abs().max()
        actions = torch.stack([bond.relabel(identity, g, g).mT for g in bond.relabellings()])  # J -> action @ J
        keeps = (actions.to(J) @ J - J).abs().amax(-1) < 1e-7 * scale
        values, vectors = torch.linalg.eigh(actions.to(J)[keeps].mean(0))
        return vectors[:, values > 0.5]

    def nearest_names(self, J: Tensor, near: Tensor) -> Tensor:  # (n,), (n,) -> (n,)
        """Among the equal students of J under new names of the hidden spins, the one closest to `near`."""
        g = self.plaquette.bond.relabellings().to(J)
        same = torch.stack([self.plaquette.bond.relabel(J, g[0], u) for u in g])
        return same[(same - near).norm(dim=-1).argmin()]

    def _log_probability(self, log_weight: Tensor) -> Tensor:  # (..., N, N, N, N) -> (..., N⁴)
        opposite = log_weight.transpose(-4, -2).transpose(-3, -1)
        return (log_weight + self.environment * opposite).flatten(-4).log_softmax(-1)

    @classmethod
    def examples(cls) -> Iterator[ExactStep]:
        """Open, in an environment, and free of the relabelling symmetry."""
        yield cls(plaquette())
        yield cls(plaquette(), environment=0.5)
        yield cls(plaquette("S2", "A1+E"), branch="free")


def minimise(loss: Callable[[Tensor], Tensor], y: Tensor, tolerance: float = 1e-11, n_steps: int = 300) -> Tensor:
    """A local minimum by damped Newton steps with |curvature| + λ; flat directions do not move.

    A stationary point with a direction of negative curvature is left along it, so saddles are no answers.
    """
    damping, value = 1e-3, loss(y)
    for _ in range(n_steps):
        slope = grad(loss)(y)
        curvature, axes = torch.linalg.eigh(hessian(loss)(y))
        components = axes.mT @ slope
        gain = components.square() / curvature.abs().clamp(min=1e-12)
        if components.abs().max() < tolerance or gain[components.abs() > tolerance].max() < 1e-14:
            if curvature[0] > -1e-7:
                settled = curvature.abs() > 1e-9
                return y - axes[:, settled] @ (components / curvature)[settled]
            y = y + 0.1 * axes[:, 0]
            value = loss(y)
            continue
        y, value, damping = _descend(loss, y, value, axes, (components, curvature), damping)
    return y


def _descend(
    loss: Callable[[Tensor], Tensor],
    y: Tensor,
    value: Tensor,
    axes: Tensor,
    slopes: tuple[Tensor, Tensor],
    damping: float,
) -> tuple[Tensor, Tensor, float]:
    """One step that does not climb, with more damping until it is found."""
    components, curvature = slopes
    for _ in range(30):
        trial = y - axes @ (components / (curvature.abs() + damping))
        trial_value = loss(trial)
        if trial_value <= value:
            return trial, trial_value, max(damping / 10, 1e-13)
        damping *= 4
    return y, value, damping
