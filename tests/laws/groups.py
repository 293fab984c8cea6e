"""Laws of groups and representations: each raises AssertionError, naming the object that breaks it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from symmetries.defining import defining
from symmetries.group import FiniteGroup, Group, LieGroup
from symmetries.irreps import irreps
from symmetries.representation import Representation, invariant_projector

TOLERANCE = 1e-12


def distance(group: Group, g: Tensor, h: Tensor) -> float:
    """Largest difference of entries; angles (real elements without axes) are compared modulo 2π."""
    difference = (g - h).to(torch.complex128)
    if isinstance(group, LieGroup) and group.element_shape == ():
        difference = 2 * (difference.real / 2).sin()
    return difference.abs().max().item()


def some_elements(group: Group, seed: int = 0) -> Tensor:
    """The generators and a few random elements."""
    generators = group.generators()
    drawn = group.random(6, torch.Generator().manual_seed(seed), generators.dtype)
    return torch.cat([generators, drawn])


def group_axioms(group: Group) -> None:
    """Closure, associativity, neutral element, inverse; batch axes broadcast."""
    g = some_elements(group)
    left, middle, right = (g.reshape(shape + group.element_shape) for shape in ((-1, 1, 1), (-1, 1), (-1,)))
    product = group.compose(middle, right)
    if isinstance(group, FiniteGroup):
        group.index(product)
    if isinstance(group, LieGroup):
        assert group.contains(product).all(), f"{group} is not closed"
    both = group.compose(group.compose(left, middle), right), group.compose(left, product)
    assert distance(group, *both) < TOLERANCE, f"{group} is not associative"
    unit = group.identity().expand_as(g)
    for result in (group.compose(unit, g), group.compose(g, unit)):
        assert distance(group, result, g) < TOLERANCE, f"{group} has a wrong identity"
    for result in (group.compose(group.inverse(g), g), group.compose(g, group.inverse(g))):
        assert distance(group, result, unit) < TOLERANCE, f"{group} has a wrong inverse"


def elements_complete(group: FiniteGroup) -> None:
    """The elements are `order` different ones, identity first, and exactly what the generators generate."""
    assert group.order == len(group.elements) == len(torch.unique(group.elements, dim=0)), f"{group}: order"
    assert torch.equal(group.elements[0], group.identity()), f"{group}: the identity is not first"
    known = {0}
    frontier = group.identity()[None]
    while len(frontier):
        reached = group.compose(group.generators()[:, None], frontier[None]).flatten(0, 1)
        fresh = sorted(set(group.index(reached).tolist()) - known)
        known |= set(fresh)
        frontier = group.elements[fresh]
    assert len(known) == group.order, f"{group}: its generators reach {len(known)} of {group.order} elements"


def within(samples: Tensor, exact: float, name: str) -> None:
    """The mean of independent samples agrees with the exact value within four standard errors."""
    error = samples.std().item() / math.sqrt(len(samples))
    assert abs(samples.mean().item() - exact) <= 4 * error + TOLERANCE, f"{name}: {samples.mean()} ± {error}"


def random_uniform(group: FiniteGroup, n: int = 4000) -> None:
    """χ² of the element counts has mean |G| - 1 and variance 2(|G| - 1): within four deviations."""
    counts = group.index(group.random(n, torch.Generator().manual_seed(1))).bincount(minlength=group.order)
    expected, freedom = n / group.order, group.order - 1
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi_square - freedom) <= 4 * math.sqrt(2 * freedom), f"{group}: χ² {chi_square}, not {freedom}"


def random_haar(group: LieGroup, n: int = 20_000) -> None:
    """⟨U⟩ = 0, ⟨|Tr U|²⟩ = 1, ⟨|Tr U|⁴⟩ = 2 (1 for U(1)), also after multiplication by a fixed element."""
    u = group.compose(group.generators()[0], group.random(n, torch.Generator().manual_seed(2)))
    matrix = defining(group).matrix(u)
    for entry in torch.view_as_real(matrix).reshape(n, -1).unbind(-1):
        within(entry, 0, f"⟨U⟩ of {group}")
    trace = defining(group).character(u).abs()
    within(trace**2, 1, f"⟨|Tr U|²⟩ of {group}")
    within(trace**4, 1 if group.dim == 1 else 2, f"⟨|Tr U|⁴⟩ of {group}")


def homomorphism(representation: Representation) -> None:
    """D(gh) = D(g) D(h), D(e) = 1, of the promised shape."""
    group, g = representation.group, some_elements(representation.group)
    matrices, unit = representation.matrix(g), representation.matrix(group.identity())
    assert matrices.shape == (len(g), representation.dim, representation.dim), f"{representation}: shape"
    assert (unit - torch.eye(representation.dim)).abs().max() < TOLERANCE, f"{representation}: D(e) is not 1"
    pairs = g.reshape(-1, 1, *group.element_shape)
    error = representation.matrix(group.compose(pairs, g)) - matrices[:, None] @ matrices
    assert error.abs().max() < TOLERANCE, f"{representation} is not a homomorphism: {error.abs().max():.1e}"


def unitarity(representation: Representation) -> None:
    """D(g) D(g)† = 1 on generators and random elements."""
    matrices = representation.matrix(some_elements(representation.group))
    error = (matrices @ matrices.mH - torch.eye(representation.dim)).abs().max()
    assert error < TOLERANCE, f"{representation} is not unitary: {error:.1e}"


def characters_orthogonal(group: FiniteGroup, table: dict[str, Representation] | None = None) -> None:
    """(1/|G|) Σ χ_A* χ_B = δ_AB over all irreps, and Σ dim² = |G|."""
    found = table or irreps(group)
    characters = torch.stack([a.character(group.elements).to(torch.complex128) for a in found.values()])
    overlap = characters.conj() @ characters.mT / group.order
    assert (overlap - torch.eye(len(found))).abs().max() < TOLERANCE, f"{group}: characters not orthonormal"
    assert sum(a.dim**2 for a in found.values()) == group.order, f"{group}: irreps are missing"


def projector_idempotent(representation: Representation) -> None:
    """P² = P = P†, and D(g) P = P for the averaged projector."""
    projector = invariant_projector(representation)
    moved = representation.matrix(representation.group.generators()) @ projector
    for other in (projector @ projector, projector.mH, moved):
        assert (other - projector).abs().max() < TOLERANCE, f"{representation}: not an invariant projector"
