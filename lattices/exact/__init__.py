"""Oracles: closed forms, enumerations and transfer matrices that everything else is tested against.

Pure functions of plain numbers in float64. Weights are exp(-S); log Z is of the whole lattice, and per
site on the infinite plane. A torus has one bond per site and direction: length 2 counts both bonds.
"""

from lattices.exact.chain import (
    FixedPoint,
    decimation,
    ising_chain_log_z,
    migdal_kadanoff,
    migdal_kadanoff_fixed_point,
)
from lattices.exact.enumeration import (
    SpinMoments,
    clock_enumeration,
    ising_enumeration,
    potts_critical_coupling,
    potts_enumeration,
)
from lattices.exact.free_field import free_field_log_z, free_field_propagator, free_field_spectrum
from lattices.exact.gauge import (
    CharacterExpansion,
    character_expansion,
    gauge_plane_plaquette,
    gauge_torus_log_z,
    gauge_torus_plaquette,
    gauge_torus_wilson_loop,
    heat_kernel_expansion,
    one_plaquette_log_z,
    u1_charge_distribution,
    u1_charge_squared,
)
from lattices.exact.ising import (
    ising_critical_coupling,
    ising_torus_energy,
    ising_torus_log_z,
    onsager_energy,
    onsager_log_z,
    onsager_magnetisation,
)
from lattices.exact.phi4 import Phi4Moments, phi4_moments
from lattices.exact.spin_tori import clock_torus, heisenberg_strip, xy_torus
from lattices.exact.spins import SpinLink, SpinSolution, clock_link, on_link, on_square, spin_chain, spin_ring

__all__ = [
    "CharacterExpansion",
    "FixedPoint",
    "Phi4Moments",
    "SpinLink",
    "SpinMoments",
    "SpinSolution",
    "character_expansion",
    "clock_enumeration",
    "clock_link",
    "clock_torus",
    "decimation",
    "free_field_log_z",
    "free_field_propagator",
    "free_field_spectrum",
    "gauge_plane_plaquette",
    "gauge_torus_log_z",
    "gauge_torus_plaquette",
    "gauge_torus_wilson_loop",
    "heat_kernel_expansion",
    "heisenberg_strip",
    "ising_chain_log_z",
    "ising_critical_coupling",
    "ising_enumeration",
    "ising_torus_energy",
    "ising_torus_log_z",
    "migdal_kadanoff",
    "migdal_kadanoff_fixed_point",
    "on_link",
    "on_square",
    "one_plaquette_log_z",
    "onsager_energy",
    "onsager_log_z",
    "onsager_magnetisation",
    "phi4_moments",
    "potts_critical_coupling",
    "potts_enumeration",
    "spin_chain",
    "spin_ring",
    "u1_charge_distribution",
    "u1_charge_squared",
    "xy_torus",
]
