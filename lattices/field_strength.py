"""Field strength of link fields by clover leaves: energy density E, topological charge; geometric charge of U(1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lattices.fields import FieldSpace
from lattices.gauge import require_links
from lattices.loops import planes, transporter
from lattices.wilson_loops import plaquette_angles, plaquette_traces
from symmetries.spectra import traceless_anti_hermitian, wrap


def field_strength(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, planes, *extents, *target)
    """a² F_{μν}(x) for μ < ν in the algebra: the mean of the four plaquettes (leaves) around x, projected.

    Anti-Hermitian and traceless for SU(N), covariant: F → Ω F Ω†; the mean of sin θ_P for U(1). Of order a⁴ from the
    continuum, and bounded: strong fields look weaker. Cost V.

    Symmetries: gauge covariant; odd under an odd number of reflections in the plane.
    References: Sheikholeslami and Wohlert 1985, Nucl. Phys. B 259, 572.
    """
    require_links(field)
    if field.target.shape:
        return torch.stack([_clover(x, mu + 1, nu + 1) for mu, nu in planes(x.shape[1])], 1)
    sines = plaquette_angles(x).sin()
    return torch.stack([_around(s, *plane, x.shape[1]) for s, plane in zip(sines.unbind(1), planes(x.shape[1]))], 1)


def energy_density(field: FieldSpace, x: Tensor, clover: bool = True) -> Tensor:  # (batch, *event) -> (batch, *extents)
    """E(x) = ½ Σ_{μ<ν} ⟨F_{μν}, F_{μν}⟩, which is ¼ F^a_{μν} F^a_{μν}; S = ∫E / g₀² near the continuum.

    Args:
        field: links of U(1) or SU(N).
        x: the configurations.
        clover: from the clover field strength; else from plaquettes: 2 Σ Re Tr(1 - P), Σ (1 - cos θ_P) of U(1).

    References: Lüscher 2010, arXiv:1006.4518, eqs. (3.1), (3.2).
    """
    if clover:
        f = field_strength(field, x)
        return field.target.inner(f, f).sum(1) / 2
    normalisation = 2 * field.target.shape[0] if field.target.shape else 1
    return normalisation * (1 - plaquette_traces(field, x)).sum(1)


def charge_density(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *extents)
    """The topological charge density of the clover field strength, in d = 4, and of U(1) in d = 2.

        d = 4:  q = -(1/32π²) ε_{μνρσ} Tr F_{μν} F_{ρσ}    (U(1): (1/32π²) ε F F)        d = 2:  q = F_{12} / 2π

    Its sum is near a whole number on smooth fields alone: flow rough ones first. Cost V.

    Symmetries: gauge; odd under reflections; under charge conjugation odd in d = 2, even in d = 4.
    References: Di Vecchia, Fabricius, Rossi and Veneziano 1981, Nucl. Phys. B 192, 392.
    """
    require_charge(field)
    f = field_strength(field, x)
    if f.shape[1] == 1:
        return f[:, 0] / (2 * math.pi)
    pairs = zip(((0, 1), (0, 2), (0, 3)), ((2, 3), (1, 3), (1, 2)), (1, -1, 1))
    at = {plane: f[:, i] for i, plane in enumerate(planes(4))}
    total = torch.stack([sign * field.target.inner(at[a], at[b]) for a, b, sign in pairs]).sum(0)
    return total / ((8 if field.target.shape else 4) * math.pi**2)


def clover_charge(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """Q = Σ_x q(x) of `charge_density`."""
    return charge_density(field, x).flatten(1).sum(1)


def geometric_charge(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, 2, *extents) -> (batch,)
    """Q = Σ_P wrap(θ_P) / 2π, a whole number, of U(1) in d = 2. Cost V.

    Symmetries: gauge, translations, centre; odd under reflections and charge conjugation.
    References: Lüscher 1982, Commun. Math. Phys. 85, 39.
    """
    if not has_geometric_charge(field):
        raise ValueError(f"expected U(1) links in two dimensions, got {field}: elsewhere use clover_charge")
    return (wrap(plaquette_angles(x)).flatten(1).sum(1) / (2 * math.pi)).round()


def has_geometric_charge(field: FieldSpace) -> bool:
    """Whether the field is U(1) in d = 2."""
    require_links(field)
    return field.lattice.dimension == 2 and not field.target.shape


def require_charge(field: FieldSpace) -> None:
    """Raise where no topological charge density is defined."""
    require_links(field)
    if field.lattice.dimension != 4 and not has_geometric_charge(field):
        raise ValueError(f"expected four dimensions, or U(1) in two, got {field}: there is no charge density else")


def _clover(u: Tensor, m: int, n: int) -> Tensor:  # (batch, d, *extents, N, N) -> (batch, *extents, N, N)
    leaves = [(m, n, -m, -n), (n, -m, -n, m), (-m, -n, m, n), (-n, m, n, -m)]
    return traceless_anti_hermitian(torch.stack([transporter(u, leaf) for leaf in leaves]).mean(0))


def _around(v: Tensor, mu: int, nu: int, d: int) -> Tensor:  # (batch, *extents) -> (batch, *extents)
    """The mean over the four plaquettes of a plane that meet at x."""
    pair = v + v.roll(1, mu - d)
    return (pair + pair.roll(1, nu - d)) / 4
