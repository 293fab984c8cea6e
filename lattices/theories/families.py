"""Sections of families, S(x; g) = S(x; J = offset + matrix·g), and φ⁴ in the two couplings of the literature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lattices.action import Action, Family, check_couplings, named_couplings
from lattices.fields import FieldSpace
from lattices.lattice import Lattice
from lattices.theories.phi4 import Phi4Family


@dataclass(frozen=True)
class Section(Family):
    """An affine section of a family: fewer couplings, or the same ones in the spelling of another convention.

        S(x; g) = S(x; J(g)),    J(g) = offset + matrix·g

    Cost: that of the family. Affine, not linear, so that it fixes a normalisation such as kinetic = 1; the gradient of
    S in g is matrixᵀ times that in J.

    Args:
        family: the family with couplings J.
        names: of the couplings g.
        offset: one number per coupling J.
        matrix: one row per coupling J, one column per coupling g.
    """

    family: Family
    names: tuple[str, ...]
    offset: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        rows = tuple(tuple(map(float, row)) for row in self.matrix)
        for name, value in (("names", tuple(self.names)), ("offset", tuple(map(float, self.offset))), ("matrix", rows)):
            object.__setattr__(self, name, value)
        n, shapes = len(self.family.names), {len(row) for row in rows}
        if not self.names or (len(self.offset), len(rows)) != (n, n) or shapes != {len(self.names)}:
            raise ValueError(
                f"expected an offset of {n} numbers and {n} rows of {len(self.names)}, got {self.offset} and {rows}: "
                f"one row for each of {self.family.names}, one column for each of {self.names}"
            )
        if len(set(self.names)) < len(self.names) or not all(map(math.isfinite, sum(rows, self.offset))):
            raise ValueError(f"expected different names and finite numbers, got {self.names}, {self.offset}, {rows}")

    @property
    def field(self) -> FieldSpace:
        return self.family.field

    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:  # (batch, *event), (n,) or (batch, n) -> (batch,)
        check_couplings(self.names, couplings, len(x))
        return self.family.energy(x, self.embed(couplings.to(x)))

    def embed(self, couplings: Tensor) -> Tensor:  # (..., n) -> (..., n of the family)
        """J(g) = offset + matrix·g."""
        return couplings @ couplings.new_tensor(self.matrix).mT + couplings.new_tensor(self.offset)

    def at(self, couplings: Tensor) -> Action:  # (n,) -> Action
        named_couplings(self.names, couplings)
        return self.family.at(self.embed(couplings))

    def on(self, lattice: Lattice | tuple[int, ...]) -> Section:
        return replace(self, family=self.family.on(lattice))

    @classmethod
    def examples(cls) -> Iterator[Section]:
        """φ⁴ in forms D and A."""
        yield phi4_form_d((4, 4))
        yield phi4_form_d((2, 3, 4), ("diagonal", "sextic", "source"))
        yield phi4_form_a((4, 4), ("diagonal",))


def phi4_form_d(extents: tuple[int, ...], further: Sequence[str] = ()) -> Section:
    """φ⁴ in form D: couplings ("beta", "quartic"), the form of the lattice literature; λ → ∞ is the Ising model, K = β.

        S = Σ_x [ -β Σ_μ χ_x χ_{x+μ} - β' Σ_{μ<ν,±} χ_x χ_{x+μ±ν} + χ² + λ (χ² - 1)² + g χ⁶ + h χ ] - λV

    so kinetic = β/2, diagonal = β'/2, mass_squared = 1 - 2λ - dβ - d(d-1)β'. The constant λV is left out, as in
    `Phi4.from_form_d` (κ = β/2), whose field is rescaled: this one keeps χ, so log Z is that of form D.

    Args:
        extents: sites along each axis, e.g. (8, 8).
        further: more couplings, out of "diagonal" β', "sextic" g and "source" h (h > 0 favours χ < 0).

    References: M. Hasenbusch 1999, arXiv:hep-lat/9902026.
    """
    d = len(Lattice(extents).extents)
    columns = {
        "beta": {"kinetic": 0.5, "mass_squared": -d},
        "quartic": {"quartic": 1.0, "mass_squared": -2.0},
        "diagonal": {"diagonal": 0.5, "mass_squared": -d * (d - 1)},
    }
    return _phi4_section(extents, {"mass_squared": 1.0}, ("beta", "quartic", *further), columns)


def phi4_form_a(extents: tuple[int, ...], further: Sequence[str] = ()) -> Section:
    """φ⁴ in form A: couplings ("mass_squared", "quartic"), with kinetic = 1, as in `Phi4`.

        S = Σ_x [ Σ_μ (φ_{x+μ} - φ_x)² + κ' Σ_{μ<ν,±} (φ_{x+μ±ν} - φ_x)² + m² φ² + λ φ⁴ + g φ⁶ + h φ ]

    It meets form D at φ = χ √(β/2), (m² + 2d) β/2 = 1 - 2λ_D, λ_D = λ β²/4: in d = 2, m² = -4 is λ_D = ½, λ = 2/β².

    Args:
        extents: sites along each axis, e.g. (8, 8).
        further: more couplings, out of "diagonal" κ', "sextic" g and "source" h.
    """
    return _phi4_section(extents, {"kinetic": 1.0}, ("mass_squared", "quartic", *further), {})


def _phi4_section(
    extents: tuple[int, ...],
    offset: Mapping[str, float],
    names: tuple[str, ...],
    columns: Mapping[str, Mapping[str, float]],
) -> Section:
    """The section of `Phi4Family` with these columns; a coupling without a column stands for itself."""
    if not set(names[2:]) <= {"diagonal", "sextic", "source"}:
        raise ValueError(f"expected further couplings out of diagonal, sextic, source, got {names[2:]}: pick from them")
    family = Phi4Family(extents, ("kinetic", "mass_squared", "quartic", *names[2:]))
    column = {name: columns.get(name, {name: 1.0}) for name in names}
    matrix = tuple(tuple(column[name].get(J, 0.0) for name in names) for J in family.names)
    return Section(family, names, tuple(offset.get(J, 0.0) for J in family.names), matrix)
