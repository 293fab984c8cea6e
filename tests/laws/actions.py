"""Laws of actions: each raises AssertionError, naming the action that breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lattices.action import Action, ActionFamily, Family
from lattices.fields import FieldSpace
from lattices.lattice import Lattice
from lattices.theories.clock import ClockSpins
from lattices.theories.ising import Spins
from tests.laws.fields import generator, refusal

TOLERANCE = 1e-12


def fields_of(action: Action, n: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """A few random fields."""
    return action.field.random(n, generator(), dtype)


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the larger of 1 and the values."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


def one_value_per_field(action: Action) -> None:
    """S(x) is real, finite, (batch,) and of the dtype of x; the force is like x."""
    for dtype in (torch.float32, torch.float64):
        x = fields_of(action, dtype=dtype)
        energy, force = action(x), action.force(x)
        assert energy.shape == (len(x),), f"{action}: S has shape {tuple(energy.shape)}"
        assert energy.dtype == dtype, f"{action}: S has dtype {energy.dtype} for {dtype}"
        assert energy.isfinite().all(), f"{action}: S is not finite"
        assert force.shape == x.shape, f"{action}: the force has shape {tuple(force.shape)}"
        assert force.dtype == x.dtype, f"{action}: the force has dtype {force.dtype}"


def precise_in_single(action: Action) -> None:
    """S in float32 agrees with float64 to a few ulp of its largest terms."""
    x = fields_of(action, dtype=torch.float32)
    assert distance(action(x).double(), action(x.to(torch.promote_types(x.dtype, torch.float64)))) < 1e-5, f"{action}"


def follows_device(action: Action) -> None:
    """Nothing inside stays behind on another device: S and the force of a meta tensor are meta tensors."""
    x = fields_of(action).to("meta")
    assert action.energy(x).device == action.force(x).device == x.device, f"{action} leaves the device of x"


def invariant_as_claimed(action: Action) -> None:
    """S(g·x) = S(x) for every generator of every claimed symmetry, and lattice actions claim something."""
    x = fields_of(action)
    assert action.symmetries or not hasattr(action, "extents"), f"{action} claims no symmetry"
    for symmetry in action.symmetries:
        for g in symmetry.generators(action.field):
            error = distance(action(action.field.act(g, x)), action(x))
            assert error < TOLERANCE, f"{action} changes by {error:.1e} under {g} of {symmetry}"


def broken_as_claimed(action: Action) -> None:
    """S(g·x) ≠ S(x) for the transformation named as no symmetry."""
    x = fields_of(action)
    moved = action.field.act(action.broken, x)
    assert distance(action(moved), action(x)) > 1e-6, f"{action} is invariant under {action.broken}"


def moved(field: FieldSpace, x: Tensor, v: Tensor) -> Tensor:
    """exp(x, v), or x + v of discrete spins, whose energy is a function of real numbers too."""
    return x + v if isinstance(field.target, Spins | ClockSpins) else field.exp(x, v)


def force_is_minus_gradient(action: Action, step: float = 1e-3) -> None:
    """-F·v = dS(x + εv)/dε along random directions v, by a fourth-order difference."""
    x = fields_of(action)
    field, v = action.field, action.field.target.normal(x, generator(7)) / math.sqrt(x[0].numel())

    def difference(k: int) -> Tensor:
        ahead, behind = (moved(field, x, sign * k * step * v) for sign in (1, -1))
        return action.energy(ahead) - action.energy(behind)

    slope = (8 * difference(1) - difference(2)) / (12 * step)
    error = distance(-field.target.inner(action.force(x), v).flatten(1).sum(1), slope)
    assert error < 1e-7, f"{action}: the force is not -∂S/∂x, {error:.1e} off"


def force_is_differentiable(action: Action) -> None:
    """The energy can be differentiated by autograd, and agrees with the force; x is not changed in place."""
    x = fields_of(action).requires_grad_()
    before = x.detach().clone()
    derivative = torch.autograd.grad(action(x).sum(), x)[0]
    gradient = action.field.target.gradient(x.detach(), derivative)
    assert distance(action.force(x.detach()), -gradient) < TOLERANCE, f"{action}: force and autograd differ"
    assert torch.equal(x.detach(), before), f"{action} changes its argument"


def batch_independent(action: Action) -> None:
    """A configuration's S does not depend on its companions."""
    x = fields_of(action)
    alone = torch.cat([action(one) for one in x.split(1)])
    assert distance(action(x), alone) < TOLERANCE, f"{action}: S depends on the rest of the batch"
    assert distance(action(x.flip(0)), alone.flip(0)) < TOLERANCE, f"{action}: S depends on the order of the batch"


def tiles(action: Any) -> None:
    """The action of a field repeated along an axis is twice that of the field (for actions with `extents`)."""
    x, first = fields_of(action), action.field.lattice_axes[0]
    twice = replace(action, extents=(2 * action.extents[0], *action.extents[1:]))
    assert distance(twice(torch.cat([x, x], first)), 2 * action(x)) < TOLERANCE, f"{action}: a tiled field is not tiled"


def spectrum_is_covariance(action: Action) -> None:
    """`gaussian_spectrum` is None, or positive, finite, one value per momentum and even in momentum."""
    spectrum = action.gaussian_spectrum()
    if spectrum is None:
        return
    assert spectrum.shape == action.field.lattice.extents, f"{action}: the spectrum has shape {tuple(spectrum.shape)}"
    assert (spectrum > 0).all(), f"{action}: the spectrum is not positive"
    assert spectrum.isfinite().all(), f"{action}: the spectrum is not finite"
    axes = tuple(range(spectrum.ndim))
    mirrored = spectrum.flip(axes).roll([1] * spectrum.ndim, axes)
    assert distance(mirrored, spectrum) < TOLERANCE, f"{action}: C(k) differs from C(-k)"


def validates(action: Action) -> None:
    """Calling an action with fields that are no fields says what was expected."""
    x = fields_of(action)
    for error, bad in (
        (ValueError, x[0]),
        (ValueError, x * math.nan),
        (ValueError, x[..., :-1]),
        (TypeError, x.tolist()),
    ):
        message = refusal(error, action, bad)
        assert "expected" in message, f"{action}: {message!r} does not say what was expected"


def algebra(action: Action) -> None:
    """Energies and forces of sums and multiples are sums and multiples, and symmetries are kept."""
    x = fields_of(action)
    combined = 0.25 * action + action * 0.5 - action
    assert distance(combined(x), -0.25 * action(x)) < TOLERANCE, f"{action}: no linear combinations"
    assert distance(combined.force(x), -0.25 * action.force(x)) < TOLERANCE, f"{action}: no linear combinations"
    assert combined.symmetries == action.symmetries, f"{action}: a combination forgets symmetries"


def couplings_of(family: Family, n: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:  # -> (n, n_couplings)
    """Random positive couplings, half of what is allowed."""
    couplings = 1 + torch.rand(n, len(family.names), generator=generator(3), dtype=torch.float64)
    for _ in range(10):
        try:
            return (family.check(couplings) / 2).to(dtype)
        except ValueError:
            couplings = couplings / 2
    raise AssertionError(f"{family} allows no couplings between 0 and 1")


def energy_at_couplings(family: Family) -> None:
    """S(x; J) = at(J)(x), with one J for all and one for each, in shape (batch,) and the dtype of x."""
    for dtype, tolerance in ((torch.float64, TOLERANCE), (torch.float32, 1e-4)):
        x, couplings = family.field.random(4, generator(), dtype), couplings_of(family).to(dtype)
        each, shared = family.energy(x, couplings), family.energy(x, couplings[0])
        alone = torch.cat([family.at(J)(one) for J, one in zip(couplings, x.split(1))])
        assert each.shape == shared.shape == (4,), f"{family}: S has shapes {tuple(each.shape)}, {tuple(shared.shape)}"
        assert each.dtype == shared.dtype == dtype, f"{family}: S has dtypes {each.dtype}, {shared.dtype} for {dtype}"
        assert distance(each, alone) < tolerance, f"{family}: S(x; J) is not at(J)(x)"
        assert distance(shared, family.at(couplings[0])(x)) < tolerance, f"{family}: S(x; J) is not at(J)(x)"
    assert family.energy(x, couplings.double()).dtype == dtype, f"{family}: couplings change the dtype of S"


def gradients_of_families(family: Family, step: float = 1e-3) -> None:
    """Autograd gives ∂S/∂J, by a fourth-order difference, and ∂S/∂x = -force of at(J)."""
    x, couplings = family.field.random(4, generator()), couplings_of(family)
    y, J = x.clone().requires_grad_(), couplings.clone().requires_grad_()
    along_x, along_J = torch.autograd.grad(family.energy(y, J).sum(), (y, J))
    direction = torch.randn(J.shape, generator=generator(5), dtype=J.dtype)

    def difference(k: int) -> Tensor:
        up, down = (couplings + sign * k * step * direction for sign in (1, -1))
        return family.energy(x, up) - family.energy(x, down)

    slope = (8 * difference(1) - difference(2)) / (12 * step)
    assert distance((along_J * direction).sum(1), slope) < 1e-7, f"{family}: ∂S/∂J is wrong"
    forces = torch.cat([family.at(J).force(one) for J, one in zip(couplings, x.split(1))])
    assert distance(-family.field.target.gradient(x, along_x), forces) < TOLERANCE, (
        f"{family}: ∂S/∂x is not minus the force of at(J)"
    )


def lives_on_other_lattices(family: Family) -> None:
    """`on` changes the extents alone: there and back is the same family, and a tiled field has a tiled energy."""
    extents, axis = family.field.lattice.extents, family.field.lattice_axes[0]
    twice = family.on((2 * extents[0], *extents[1:]))
    assert type(twice) is type(family), f"{family} becomes {twice} on another lattice"
    assert twice.names == family.names, f"{family}: other couplings on another lattice, {twice.names}"
    assert twice.field == replace(family.field, lattice=Lattice((2 * extents[0], *extents[1:]))), f"{family}: {twice}"
    assert twice.on(family.field.lattice) == family, f"{family} is not itself after a journey"
    x, couplings = family.field.random(4, generator()), couplings_of(family)
    tiled = twice.energy(torch.cat([x, x], axis), couplings)
    assert distance(tiled, 2 * family.energy(x, couplings)) < TOLERANCE, f"{family}: a tiled field is not tiled"
    assert "expected" in refusal(ValueError, family.on, (*extents, 2)), f"{family} changes its dimension"


def checks_couplings(family: Family) -> None:
    """Sound couplings pass `check` unchanged; a wrong shape, NaN and Inf are explained."""
    sound = couplings_of(family)
    assert family.check(sound) is sound, f"{family}: check changes the couplings"
    assert family.check(sound[0]).shape == (len(family.names),), f"{family}: check refuses a single J"
    n = len(family.names)
    for bad in (sound[0].new_ones(n + 1), sound[None], sound * math.nan, sound[0] * math.inf, sound[0, 0]):
        assert "expected" in refusal(ValueError, family.check, bad), f"{family}: {bad} is not refused"
    for bad in (sound[0].new_ones(n + 1), sound, sound[0] * math.nan):
        assert "expected" in refusal(ValueError, family.at, bad), f"{family}: at({bad}) is not refused"
    x = family.field.random(4, generator())
    for bad in (sound[0].new_ones(n + 1), sound[:3]):
        assert "expected" in refusal(ValueError, partial(family.energy, x), bad), f"{family}: S(x; {bad}) is allowed"


def linear_in_couplings(family: ActionFamily) -> None:
    """S(x; J) = O(x)·J with ∂S/∂J = O, one row of operators for each field."""
    x, couplings = family.field.random(4, generator()), couplings_of(family).requires_grad_()
    operators = family.operators(x)
    assert operators.shape == (4, len(family.names)), f"{family}: operators have shape {tuple(operators.shape)}"
    energy = family.energy(x, couplings)
    assert distance(energy, (operators * couplings).sum(1)) < TOLERANCE, f"{family}: S is not linear in J"
    gradient = torch.autograd.grad(energy.sum(), couplings)[0]
    assert distance(gradient, operators) < TOLERANCE, f"{family}: ∂S/∂J is not the operator"


FAMILY_LAWS: tuple[Callable[[Any], None], ...] = (
    energy_at_couplings,
    gradients_of_families,
    lives_on_other_lattices,
    checks_couplings,
)

ACTION_LAWS: tuple[Callable[[Action], None], ...] = (
    one_value_per_field,
    precise_in_single,
    follows_device,
    invariant_as_claimed,
    broken_as_claimed,
    force_is_minus_gradient,
    force_is_differentiable,
    batch_independent,
    spectrum_is_covariance,
    validates,
    algebra,
)
