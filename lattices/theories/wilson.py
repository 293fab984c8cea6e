"""What the gauge theories share: energies and forces of sums of Wilson loops, their checks and claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.action import ActionFamily, named_couplings
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.loops import PLAQUETTE, RECTANGLE, Path, matrices, orientations, real_trace, staples, transporter
from lattices.theories.checks import check_arguments, check_names
from symmetries.lie import SUN, U1
from symmetries.spectra import traceless_anti_hermitian

SYMMETRIES: tuple[Symmetry, ...] = (
    GaugeInvariance(), Translations(), PointGroup(), ChargeConjugation(), CentreSymmetry(),
)  # fmt: skip
LOOPS = {"plaquette": PLAQUETTE, "rectangle": RECTANGLE}


def link_field(extents: tuple[int, ...], n: int) -> FieldSpace:
    """Links in U(1) for n = 1, in SU(n) otherwise."""
    return FieldSpace(Lattice(extents), Links(U1() if n == 1 else SUN(n)), "links")


def loop_sum(field: FieldSpace, x: Tensor, loop: Path) -> Tensor:  # (batch, *event) -> (batch,)
    """Σ Re Tr U_loop / N over all positions and orientations of a loop, each once. Cost V."""
    u = matrices(field, x)
    return sum(real_trace(transporter(u, image)).flatten(1).sum(1) for image in orientations(loop, u.shape[1]))  # type: ignore[return-value]


def loop_gradient(field: FieldSpace, x: Tensor, loop: Path) -> Tensor:  # (batch, *event) -> (batch, *event)
    """∇ of `loop_sum`, in the algebra: -[U A]/2N for SU(N), -Im e^{iθ}A for U(1), A the sum of the staples."""
    u = matrices(field, x)
    through = u @ staples(u, loop)
    if field.target.shape:
        return traceless_anti_hermitian(through) / (-2 * field.target.shape[0])
    return -through.imag.squeeze(-1).squeeze(-1)


def wilson_energy(field: FieldSpace, x: Tensor, beta: float, rectangle: float) -> Tensor:  # -> (batch,)
    """-β [ (1 - 8 c₁) Σ_P + c₁ Σ_R ] Re Tr U / N."""
    energy = -beta * (1 - 8 * rectangle) * loop_sum(field, x, PLAQUETTE)
    return energy - beta * rectangle * loop_sum(field, x, RECTANGLE) if rectangle else energy


def wilson_force(field: FieldSpace, x: Tensor, beta: float, rectangle: float) -> Tensor:  # -> (batch, *event)
    """-∇S in the algebra."""
    force = beta * (1 - 8 * rectangle) * loop_gradient(field, x, PLAQUETTE)
    return force + beta * rectangle * loop_gradient(field, x, RECTANGLE) if rectangle else force


def check_gauge(theory: object) -> None:
    """Sizes that the loops fit on, β ≥ 0, N an int."""
    check_arguments(theory)
    extents, beta = theory.extents, theory.beta  # type: ignore[attr-defined]
    smallest = 3 if theory.rectangle else 2  # type: ignore[attr-defined]
    if len(extents) < 2 or min(extents) < smallest:
        raise ValueError(
            f"expected at least two axes of {smallest} or more sites, got {extents}: a loop must not meet itself"
        )
    if beta < 0:
        raise ValueError(f"expected beta >= 0, got {beta}: on even lattices -beta is the same theory, flip links")


@dataclass(frozen=True)
class WilsonFamily(ActionFamily):
    """All actions made of small loops: S(U; J) = -Σ_a J_a Σ_loops Re Tr U_loop / N; with "plaquette" alone, J = β.

    Args:
        extents: sites along each axis, e.g. 8 8.
        n: 1 for U(1), N for SU(N).
        names: which loops, out of "plaquette" and "rectangle" (1 × 2).
    """

    extents: tuple[int, ...]
    n: int = 1
    names: tuple[str, ...] = ("plaquette",)

    def __post_init__(self) -> None:
        check_names(self, LOOPS)
        link_field(self.extents, self.n)
        if len(self.extents) < 2 or min(self.extents) < 2 + ("rectangle" in self.names):
            raise ValueError(f"expected two or more axes that the loops {self.names} fit on, got {self.extents}")

    @property
    def field(self) -> FieldSpace:
        return link_field(self.extents, self.n)

    def operators(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n)
        return torch.stack([-loop_sum(self.field, x, LOOPS[name]) for name in self.names], 1)

    def at(self, couplings: Tensor):  # type: ignore[no-untyped-def]  # (n,) -> U1Gauge or SUNGauge
        """The action with these couplings; ValueError if β would be negative."""
        from lattices.theories.su_n_gauge import SUNGauge
        from lattices.theories.u1_gauge import U1Gauge

        named = named_couplings(self.names, couplings)
        plaquette, rectangle = named.get("plaquette", 0.0), named.get("rectangle", 0.0)
        beta = plaquette + 8 * rectangle
        ratio = rectangle / beta if rectangle else 0.0
        return U1Gauge(self.extents, beta, ratio) if self.n == 1 else SUNGauge(self.extents, self.n, beta, ratio)

    @classmethod
    def examples(cls) -> Iterator[WilsonFamily]:
        """β of U(1) and SU(2), and both couplings."""
        yield cls(extents=(2, 3))
        yield cls(extents=(2, 2, 2), n=2)
        yield cls(extents=(3, 3), n=2, names=("plaquette", "rectangle"))
