"""Observables against the definitions, the free field, and enumerated spins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lattices import exact
from lattices import observables as obs
from lattices.statistics import jackknife
from lattices.theories.ising import Ising
from lattices.theories.phi4 import Phi4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def free_fields(extents: tuple[int, ...], mass_squared: float, n: int) -> Tensor:
    """Independent free fields, from the exact propagator."""
    spectrum = torch.from_numpy(0.5 / exact.free_field_spectrum(extents, mass_squared))
    axes = tuple(range(1, 1 + len(extents)))
    return torch.fft.ifftn(spectrum.sqrt() * torch.fft.fftn(noise(n, *extents), dim=axes), dim=axes).real


@pytest.mark.parametrize("extents", [(5,), (4, 3), (2, 3, 4)])
def test_two_point_function_is_its_definition(extents: tuple[int, ...]) -> None:
    x = noise(3, *extents)
    axes = tuple(range(1, x.ndim))
    measured = obs.two_point_function(x)
    for displacement in np.ndindex(extents):
        moved = x.roll([-step for step in displacement], axes)
        torch.testing.assert_close(measured[(slice(None), *displacement)], (x * moved).flatten(1).mean(1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_time_slices_sum_the_two_point_function(axis: int) -> None:
    x = noise(3, 4, 3, 2)
    transverse = tuple(a for a in (1, 2, 3) if a != 1 + axis % 3)
    torch.testing.assert_close(obs.time_slice_correlator(x, axis), obs.two_point_function(x).sum(transverse))
    torch.testing.assert_close(obs.time_slice_correlator(x[:, 0, 0]), obs.two_point_function(x[:, 0, 0]))


@pytest.mark.parametrize("extents", [(6,), (4, 3), (2, 3, 4)])
def test_structure_factor_is_the_transform_of_the_two_point_function(extents: tuple[int, ...]) -> None:
    x = noise(3, *extents)
    transformed = torch.fft.fftn(obs.two_point_function(x), dim=tuple(range(1, x.ndim))).real
    for axis in range(len(extents)):
        for mode in range(3):
            at = [0] * len(extents)
            at[axis] = mode % extents[axis]
            torch.testing.assert_close(obs.structure_factor(x, axis, mode), transformed[(slice(None), *at)])
    torch.testing.assert_close(obs.structure_factor(x, mode=0), x[0].numel() * obs.magnetisation(x) ** 2)


def test_scalar_observables() -> None:
    x = noise(7, 4, 6)
    values = obs.scalar_observables(x)
    assert all(value.shape == (7,) and value.dtype == x.dtype for value in values.values())
    assert all(value.dtype == torch.float32 for value in obs.scalar_observables(x.float()).values())
    torch.testing.assert_close(values["magnetisation"], x.mean((1, 2)))
    torch.testing.assert_close(values["absolute_magnetisation"], obs.absolute_magnetisation(x))
    torch.testing.assert_close(values["phi_fourth"], (x**4).mean((1, 2)))
    torch.testing.assert_close(values["structure_factor_one"], obs.structure_factor(x, 1))
    neighbours = obs.two_point_function(x)
    torch.testing.assert_close(values["bond"], neighbours[:, 1, 0] + neighbours[:, 0, 1])
    equal = noise(3, 4, 4)
    average = (obs.structure_factor(equal, 0) + obs.structure_factor(equal, 1)) / 2
    torch.testing.assert_close(obs.scalar_observables(equal)["structure_factor_one"], average)


def test_values_do_not_depend_on_where_the_origin_is() -> None:
    x = noise(3, 4, 6)
    for name, value in obs.scalar_observables(x.roll((1, 2), (1, 2))).items():
        torch.testing.assert_close(value, obs.scalar_observables(x)[name], msg=name)


def test_free_field_correlators_and_length() -> None:
    extents, mass_squared, n = (8, 6), 0.25, 20_000
    x = free_fields(extents, mass_squared, n)
    measured = obs.two_point_function(x)
    error = measured.std(0) / math.sqrt(n)
    z = (measured.mean(0) - torch.from_numpy(exact.free_field_propagator(extents, mass_squared))) / error
    assert z.abs().max() < 4.5  # the largest of 48
    values = obs.scalar_observables(x)
    pieces = values["structure_factor_zero"], values["structure_factor_one"]
    length = jackknife(lambda at_zero, at_one: obs.correlation_length(at_zero, at_one, 8), *pieces)
    assert abs(length.z_score(1 / math.sqrt(mass_squared))) < 4
    assert length.error < 0.05
    binder = jackknife(obs.binder_cumulant, values["magnetisation_squared"], values["magnetisation_fourth"])
    assert abs(binder.z_score(0.0)) < 4
    assert binder.error < 0.02


def test_enumerated_spins() -> None:
    extents, coupling = (3, 3), 0.4
    spins = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 9).reshape(-1, *extents)
    oracle = exact.ising_enumeration(extents, coupling)
    probabilities = torch.exp(-Ising(extents, coupling)(spins) - oracle.log_z)
    means = {name: float(value @ probabilities) for name, value in obs.scalar_observables(spins).items()}
    assert means["bond"] == pytest.approx(-oracle.energy, abs=1e-12)
    assert means["absolute_magnetisation"] == pytest.approx(oracle.magnetisation, abs=1e-12)
    binder = obs.binder_cumulant(means["magnetisation_squared"], means["magnetisation_fourth"])
    assert binder == pytest.approx(oracle.binder_cumulant, abs=1e-12)
    chi = obs.susceptibility(means["magnetisation_squared"], means["absolute_magnetisation"], 9)
    assert chi == pytest.approx(9 * (oracle.magnetisation_squared - oracle.magnetisation**2), abs=1e-12)


def test_energy_density_and_errors() -> None:
    action, x = Phi4((4, 4), -4.0, 8.0), noise(3, 4, 4)
    torch.testing.assert_close(obs.energy_density(x, action), action(x) / 16)
    with pytest.raises(ValueError, match="lattice axis from -2 to 1"):
        obs.time_slice_correlator(x, 2)
    with pytest.raises(ValueError, match="batch axis"):
        obs.structure_factor(x, -3)
