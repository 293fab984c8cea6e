"""Irreducible representations of the finite groups, by their usual names."""

from __future__ import annotations

from functools import singledispatch

from symmetries.defining import Defining, Outer, sign
from symmetries.finite import Cyclic, Dihedral, Hyperoctahedral, Product, Symmetric
from symmetries.group import Group
from symmetries.phases import Alternating, Charge, Planar
from symmetries.representation import Representation, Trivial
from symmetries.young import AxisPermutation, Young, partitions


@singledispatch
def irreps(group: Group) -> dict[str, Representation]:
    """All irreducible representations of a finite group, by name: complete, Σ dim² = |G|.

    Z_n: "0", "1", …, the charges. D_n: A1, A2, B1, B2 (n even), E or E1, E2, …. S_n: partitions, as "[2,1]".
    B_1: A1, A2. B_2: A1, A2, B1 (x² - y²), B2 (x y), E (the vector). B_3: A1g, A2g, Eg, T1g, T2g, A1u, …,
    with T1u the vector. G × H: "a × b". Anything else raises ValueError.
    """
    raise ValueError(
        f"expected Cyclic, Dihedral, Symmetric, Hyperoctahedral(d <= 3) or their Product, got {group}: "
        "build its representations from Trivial, Defining, sums and products"
    )


@irreps.register
def _(group: Cyclic) -> dict[str, Representation]:
    return {str(charge): Charge(group, charge) for charge in range(group.n)}


@irreps.register
def _(group: Dihedral) -> dict[str, Representation]:
    found: dict[str, Representation] = {"A1": Trivial(group), "A2": sign(group)}
    if group.n % 2 == 0:
        found |= {"B1": Alternating(group), "B2": Alternating(group) * sign(group)}
    windings = range(1, (group.n + 1) // 2)
    return found | {"E" if len(windings) == 1 else f"E{w}": Planar(group, w) for w in windings}


@irreps.register
def _(group: Symmetric) -> dict[str, Representation]:
    return {f"[{','.join(map(str, rows))}]": Young(group, rows) for rows in partitions(group.n)}


@irreps.register
def _(group: Hyperoctahedral) -> dict[str, Representation]:
    if group.d > 3:
        return irreps.dispatch(Group)(group)
    found: dict[str, Representation] = {"A1": Trivial(group), "A2": sign(group)}
    if group.d == 1:
        return found
    odd_permutation = AxisPermutation(Young(Symmetric(group.d), (1,) * group.d))
    if group.d == 2:
        return found | {"B1": odd_permutation, "B2": odd_permutation * sign(group), "E": Defining(group)}
    axial = Defining(group) * sign(group)
    even = {"A1": Trivial(group), "A2": odd_permutation, "E": AxisPermutation(Young(Symmetric(3), (2, 1)))}
    even |= {"T1": axial, "T2": axial * odd_permutation}
    odd = {f"{name}u": irrep * sign(group) for name, irrep in even.items()}
    return {f"{name}g": irrep for name, irrep in even.items()} | odd | {"A1u": sign(group), "T1u": Defining(group)}


@irreps.register
def _(group: Product) -> dict[str, Representation]:
    left, right = irreps(group.left), irreps(group.right)
    return {f"{a} × {b}": Outer(left[a], right[b]) for a in left for b in right}
