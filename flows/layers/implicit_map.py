"""Implicit potential maps: the forward map solves an optimal transport problem, its inverse is explicit.

Let c(x, y) = d(x, y)²/2 and ψ a function on the sphere. The c-concave potential

    φ(x) = min_y [c(x, y) + ψ(y)]

has the gradient ∇φ(x) = ∂_x c(x, y*) = -log_x y* at the minimiser y*(x), by the envelope theorem. Its map is the
minimiser itself: s(x) = exp_x(-∇φ(x)) = y*(x). At y* the derivative in y vanishes, -log_{y*} x + ∇ψ(y*) = 0, so

    x = exp_y(∇ψ(y)),   y = s(x):

the inverse of the solved map is the exponential map of ψ, in closed form with a closed Jacobian. Hence log|det ∂s| =
-log|det ∂exp(∇ψ)| at y, and all derivatives of s follow from the implicit function theorem, ∂s = J⁻¹ and
∂_θ s = -J⁻¹ ∂_θ exp(∇ψ); nothing is differentiated through iterations.

Uniqueness. Stationary points of y ↦ c(x, y) + ψ(y) are the preimages of x under exp(∇ψ). There is exactly one for each
x, the minimum, and s is a diffeomorphism, if -ψ is strictly c-concave: |∇ψ| < π, and ∇²_y c + ∇²ψ > 0 at y with
x = exp_y(∇ψ(y)). Every `Potential` satisfies it for all parameters: families in closed form because spheres have
non-negative cross-curvature, networks because |∇ψ| < s and ∇²ψ > -s, with s < s cot s ≤ ∇²c for s < π/4.

Convergence. Newton's method in tangent coordinates with an Armijo rule on the distance from exp_y(∇ψ(y)) to x,
started at y = x. That distance has no stationary point but the solution (and the antipode, its maximum), so the
iteration gets there, and quadratically at the end. The fixed-point iteration y ← exp_y(log_y x - ∇ψ(y)) needs no
Jacobian but converges linearly, near the solution with rate at most max(1 - s cot s + s, s) for |∇ψ|, |∇²ψ| < s, which
tends to 1 as s -> π/4. A point that is not solved raises RuntimeError.

Costs. One step is one evaluation of ∇ψ and ∇²ψ and an n × n system for every site; there are about four for smooth
networks, up to ten where a soft maximum is sharp. Densities log q(x) of given points need the explicit direction only
and cost one evaluation.

Invariance. If ψ(g y) = ψ(y) for an isometry g then s(g x) = g s(x), since c(g x, g y) = c(x, y).

References: S. Cohen, B. Amos & Y. Lipman, 2106.10272 (c-concave potentials, McCann's theorem); implicit Riemannian
concave potential maps, 2110.01288; uniqueness on spheres: Y.-H. Kim & R. McCann, 0806.0351.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from torch import Tensor

from flows.bijection import Bijection, Scored
from flows.layers.exponential_map import ExponentialMap, parameter_gradients
from flows.transforms.network_potentials import NetworkPotential
from flows.transforms.potentials import Potential, SoftMinimumPotential
from lattices.fields import FieldSpace, Sphere
from lattices.lattice import Lattice


@final
class ImplicitMap(Bijection):
    """x_s = argmin_y [d(z_s, y)²/2 + ψ(y)] at every site s, the inverse of the exponential map of ψ.

    Sampling solves for x; log q(x) of a given x, its score and its gradients are explicit. It is the inverse of
    `ExponentialMap(field, ψ)`, with tangents for the natural gradient: choose it where densities of data are evaluated
    more often than samples are drawn. Derivation, conditions and costs are in the documentation of the module.

    Args:
        field: unit vectors on sites.
        potential: ψ, e.g. a `NetworkPotential`; an invariant one makes the map equivariant.
    Symmetries: all symmetries of the lattice, and those of ψ.
    """

    def __init__(self, field: FieldSpace, potential: Potential) -> None:
        super().__init__()
        self.explicit = ExponentialMap(field, potential)
        self.domain = self.codomain = field
        self.symmetries = self.explicit.symmetries

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.explicit.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.explicit.forward(x, context)

    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        """`push_score`, and ∂_θ log q(x) at fixed x: the derivative of log|det| + s_z·z along the explicit map."""
        pushed = self.push_score(z, score)
        return pushed, parameter_gradients(self.explicit, pushed.x, score)

    @classmethod
    def examples(cls) -> Iterator[ImplicitMap]:
        """Networks of every kind on one point; one on every site of a lattice; a soft minimum."""
        for potential in NetworkPotential.examples():
            yield cls(FieldSpace(Lattice((1,)), Sphere(potential.n - 1)), potential)
        yield cls(FieldSpace(Lattice((3,)), Sphere(2)), next(p for p in NetworkPotential.examples() if p.n == 3))
        yield cls(FieldSpace(Lattice((1,)), Sphere(1)), SoftMinimumPotential(2, 2))
