"""Groups and representations obey their laws, broken ones do not; closed forms hold at degeneracies."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from symmetries import defining as standard
from symmetries import finite, lie, phases, representation, rotations, spectra, young
from symmetries.finite import Cyclic, Dihedral, Hyperoctahedral, Product, Symmetric
from symmetries.group import FiniteGroup, Group, LieGroup
from symmetries.irreps import irreps
from symmetries.lie import SU2, SU3, SUN, U1
from symmetries.representation import Representation, Trivial, invariant_projector, isotypic_projector
from symmetries.rotations import O3, RotationIrreps
from tests.discovery import concrete
from tests.laws import groups as laws

MODULES = (finite, lie, phases, representation, rotations, standard, young)
NAMES = {name: value for module in MODULES for name, value in vars(module).items()}


GROUPS = [example for cls in concrete(Group) for example in cls.examples()]
FINITE = [group for group in GROUPS if isinstance(group, FiniteGroup)]
LIE = [group for group in GROUPS if isinstance(group, LieGroup)]
REPRESENTATIONS = [example for cls in concrete(Representation) for example in cls.examples()]
TABLES = [*FINITE, Cyclic(5), Dihedral(2), Dihedral(5), Dihedral(6), Symmetric(2), Symmetric(5)]
IRREPS = [irrep for group in TABLES for irrep in irreps(group).values()]
SPECIAL = [SU2(), SU3(), SUN(4)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_group_axioms(group: Group) -> None:
    laws.group_axioms(group)


@pytest.mark.parametrize("group", FINITE, ids=str)
def test_finite_groups(group: FiniteGroup) -> None:
    laws.elements_complete(group)
    laws.random_uniform(group)


@pytest.mark.parametrize("group", LIE, ids=str)
def test_random_is_haar(group: LieGroup) -> None:
    laws.random_haar(group)


@pytest.mark.parametrize("rep", REPRESENTATIONS + IRREPS, ids=str)
def test_representations(rep: Representation) -> None:
    laws.homomorphism(rep)
    laws.unitarity(rep)
    if isinstance(rep.group, FiniteGroup):
        laws.projector_idempotent(rep)


@pytest.mark.parametrize("group", TABLES, ids=str)
def test_irreps_are_complete(group: FiniteGroup) -> None:
    laws.characters_orthogonal(group)
    regular = standard.Regular(group)
    for irrep in irreps(group).values() if group.order < 50 else ():
        assert representation.multiplicity(regular, irrep) == irrep.dim
        projector = isotypic_projector(regular, irrep)
        assert (projector @ projector - projector).abs().max() < laws.TOLERANCE
        assert round(projector.diagonal().sum().real.item()) == irrep.dim**2


@pytest.mark.parametrize("thing", GROUPS + REPRESENTATIONS, ids=str)
def test_values(thing: Any) -> None:
    again = eval(repr(thing), dict(NAMES))
    assert again == thing
    assert hash(again) == hash(thing)
    assert pickle.loads(pickle.dumps(thing)) == thing


# Negative controls: each law rejects an object that breaks it.


@dataclass(frozen=True)
class Saturating(Cyclic):
    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return (g + h).clamp(max=self.n - 1)


@dataclass(frozen=True)
class Subtracting(Cyclic):
    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return (g - h).remainder(self.n)


@dataclass(frozen=True)
class Skewed(SUN):
    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        basis = self.algebra_basis(dtype)
        steps = torch.randn(n, self.dim, generator=generator, dtype=torch.float64).to(basis)
        return self.exp(torch.einsum("na,aij->nij", steps, basis))


@dataclass(frozen=True)
class Loaded(Cyclic):
    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        return super().random(n, generator) * super().random(n, generator) % self.n


@dataclass(frozen=True)
class Short(Cyclic):
    def generators(self) -> Tensor:
        return torch.tensor([2])


@dataclass(frozen=True)
class Transposed(Representation):
    of: Representation

    @property
    def group(self) -> Group:  # type: ignore[override]
        return self.of.group

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.of.dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return self.of.matrix(g, dtype).mT

    @classmethod
    def examples(cls) -> Iterator[Transposed]:
        yield cls(standard.Defining(Symmetric(3)))


@dataclass(frozen=True)
class Sheared(Transposed):
    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        shear = torch.eye(self.dim, dtype=torch.float64) + torch.ones(self.dim, self.dim).triu(1)
        return shear @ self.of.matrix(g, dtype) @ torch.linalg.inv(shear)


def test_laws_reject() -> None:
    vector = standard.Defining(Symmetric(3))
    for law, broken in [
        (laws.group_axioms, Saturating(5)),
        (laws.group_axioms, Subtracting(5)),
        (laws.elements_complete, Short(4)),
        (laws.random_uniform, Loaded(4)),
        (laws.random_haar, Skewed(2)),
        (laws.random_haar, Skewed(3)),
        (laws.homomorphism, Transposed(vector)),
        (laws.unitarity, Sheared(vector)),
        (laws.projector_idempotent, Sheared(vector)),
    ]:
        with pytest.raises(AssertionError, match=type(broken).__name__):
            law(broken)  # type: ignore[operator]
    with pytest.raises(AssertionError, match="orthonormal"):
        laws.characters_orthogonal(Cyclic(2), {"a": Trivial(Cyclic(2)), "b": Trivial(Cyclic(2))})
    with pytest.raises(AssertionError, match="missing"):
        laws.characters_orthogonal(Cyclic(2), {"a": Trivial(Cyclic(2))})


def test_dtype_follows_the_input() -> None:
    for group in SPECIAL:
        u = group.random(4, seeded(), torch.complex64)
        assert {group.exp(0 * u).dtype, group.log(u).dtype, group.project(u).dtype} == {torch.complex64}
        assert spectra.eigenangles(u).dtype == torch.float32
        assert (group.exp(group.log(u)) - u).abs().max() < 1e-5
        assert standard.Adjoint(group).matrix(u).dtype == torch.float32
    assert U1().random(4, seeded(), torch.float32).dtype == torch.float32
    for rep in REPRESENTATIONS:
        if isinstance(rep.group, FiniteGroup):
            g = rep.group.generators()
            assert rep.matrix(g).dtype.to_real() == torch.float64, rep
            assert rep.matrix(g, torch.float32).dtype.to_real() == torch.float32, rep


# O(3)


def test_cubic_invariants() -> None:
    cube, parity = Hyperoctahedral(3), "eoeoeoe"
    traces = [invariant_projector(RotationIrreps(f"{l}{parity[l]}", cube)).trace() for l in range(7)]
    expected = torch.tensor([1, 0, 0, 0, 1, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(traces), expected, rtol=0, atol=1e-12)
    vector, named = RotationIrreps("1o", cube), irreps(cube)
    assert representation.multiplicity(vector, named["T1u"]) == 1
    tensor = RotationIrreps("2e", cube)
    assert {name for name in named if representation.multiplicity(tensor, named[name])} == {"Eg", "T2g"}


@pytest.fixture
def _double_by_default() -> Iterator[None]:
    """e3nn builds its own Wigner matrices in the default dtype: compare with them in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double_by_default")
def test_rotations_agree_with_e3nn() -> None:
    from e3nn.o3 import Irreps, angles_to_matrix

    turns, reflected = 3 * torch.rand(3, 20, generator=seeded(11)), torch.arange(20) % 2
    g = (1 - 2 * reflected)[:, None, None] * angles_to_matrix(*turns)
    for name in ("0e+1o+2e", "3x1e", "3e+4o", "0o", "6e"):
        reference = Irreps(name).D_from_angles(*turns, reflected)
        torch.testing.assert_close(RotationIrreps(name).matrix(g), reference, rtol=0, atol=1e-12)


def test_rotations() -> None:
    g = O3().random(20, seeded(10))
    torch.testing.assert_close(RotationIrreps("1o").matrix(g), g, rtol=0, atol=1e-13)
    unit = O3().identity().requires_grad_()
    (gradient,) = torch.autograd.grad(RotationIrreps("2e+3o").matrix(unit).sum(), unit)
    assert gradient.isfinite().all()


def test_e3nn_is_imported_late() -> None:
    code = "import sys, symmetries.rotations, symmetries.irreps; sys.exit('e3nn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Bad input


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: Cyclic(0), ValueError, "n >= 1, got 0"),
        (lambda: Cyclic(2.0), TypeError, "int, got 2.0"),  # type: ignore[arg-type]
        (lambda: Hyperoctahedral(5), ValueError, "d <= 4, got 5"),
        (lambda: Product(Cyclic(2), U1()), TypeError, "two finite groups"),  # type: ignore[arg-type]
        (lambda: SUN(1), ValueError, "n >= 2"),
        (lambda: SUN(3).random(0, seeded()), ValueError, "n >= 1"),
        (lambda: SUN(3).exp(torch.zeros(2, 2)), ValueError, r"shape \(..., 3, 3\), got \(2, 2\)"),
        (lambda: Hyperoctahedral(2).index(2 * torch.eye(2)), ValueError, "not among its elements"),
        (lambda: Trivial(Cyclic(2)) + Trivial(Cyclic(3)), ValueError, "one group"),
        (lambda: Trivial(Cyclic(2)) * Trivial(Cyclic(3)), ValueError, "one group"),
        (lambda: invariant_projector(Trivial(U1())), TypeError, "finite group"),
        (lambda: standard.Defining(Cyclic(3)), TypeError, "Symmetric or"),  # type: ignore[arg-type]
        (lambda: phases.Alternating(Dihedral(3)), ValueError, "n even"),
        (lambda: young.Young(Symmetric(3), (1, 2)), ValueError, "non-increasing"),
        (lambda: irreps(Hyperoctahedral(4)), ValueError, "got Hyperoctahedral"),
        (lambda: irreps(U1()), ValueError, "got U1"),
        (lambda: RotationIrreps("1x"), ValueError, "irreps such as"),
        (lambda: RotationIrreps("1o", Hyperoctahedral(2)), ValueError, "of space"),
    ],
)
def test_mistakes(mistake: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mistake()
