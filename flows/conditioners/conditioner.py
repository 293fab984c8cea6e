"""Conditioner: the network of a coupling layer, frozen half of the field in, parameters of the other half out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from flows.transforms.elementwise import Parity
from lattices.invariance import Symmetry
from lattices.lattice import Lattice


class Conditioner(nn.Module, ABC):
    """A network from frozen fields to the parameters of an elementwise transform, one set for each asked site.

    `symmetries` are those of the map φ ↦ p: p(g·φ) = g·p(φ) for moves of sites g, and for the sign flip
    p_even(-φ) = p_even(φ), p_odd(-φ) = -p_odd(φ), with `parity` naming the sign of every parameter.
    New conditioners return p = 0, which makes a coupling layer the identity.
    """

    lattice: Lattice
    parity: tuple[Parity, ...]
    symmetries: tuple[Symmetry, ...]

    @abstractmethod
    def forward(self, frozen: Tensor, sites: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters at `sites`.  (batch, *extents), (n_sites,) -> (batch, n_sites, n_parameters)"""
