"""Gauge-equivariant networks: from links to invariant numbers on sites, or to elements of the algebra on links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.conditioners.frames import Frames
from flows.conditioners.gauge_layers import Bilinear, TraceGate, TransportedConvolution, loop_features, transported
from flows.context import checked_context
from lattices.fields import FieldSpace
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance, require_links
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.loops import PLAQUETTE, Path, matrices, real_trace, shifted, staples
from lattices.theories.wilson import link_field
from symmetries.spectra import traceless_anti_hermitian


@dataclass(frozen=True)
class GaugeNetworkSpec:
    """What a gauge-equivariant network is made of; plain numbers only.

    Args:
        channels: matrices per site after each layer; as many layers as numbers.
        radius: how far each layer looks along the axes.
        loops: paths of the loops that the links enter by.
        hidden: width of the perceptron that reads the traces.
        point_group: treat all directions alike.
        charge_conjugation: read real parts of traces only, so that U ↦ U* changes no invariant.
        n_context: number of couplings the network is told.
    """

    channels: tuple[int, ...] = (4, 4)
    radius: int = 1
    loops: tuple[Path, ...] = (PLAQUETTE,)
    hidden: int = 16
    point_group: bool = False
    charge_conjugation: bool = True
    n_context: int = 0

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1 or self.hidden < 1:
            raise ValueError(f"expected layers and hidden of at least one channel, got {self}: pass (4, 4) and 16")
        if not self.loops or self.radius < 1 or self.n_context < 0:
            raise ValueError(f"expected at least one loop, radius >= 1 and n_context >= 0, got {self}: raise them")

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """What networks of this kind claim."""
        further = (PointGroup(),) * self.point_group + (ChargeConjugation(),) * self.charge_conjugation
        return (GaugeInvariance(), Translations(), CentreSymmetry(), *further)


@final
class GaugeTrunk(nn.Module):
    """Links to matrices on sites that transform as Ω W Ω†: gated products of W and of its transported convolution.

        W⁰ = loops,  W^{l+1} = gate(B_l(W^l, K_l * W^l)).

    `frozen` names links by ones in a mask (d, *extents); the others are replaced by zeros, so that nothing depends on
    them and what remains is covariant; choose loops that fit between those. With the point group W has one component
    for each of the 2d (2d - 2) frames (8, 24, 48 in d = 2, 3, 4). Cost V N² Σ (frames² channels² 2d radius), roughly.

    Args:
        field: links of U(1) or SU(N), d >= 2.
        spec: channels, radius, loops, symmetries and context.

    Shape: (batch, *event) -> (batch, channels, frames, *extents, N, N).
    Symmetries: those of the spec.
    References: Favoni, Ipp, Müller and Schuh 2020, arXiv:2012.12901.
    """

    def __init__(self, field: FieldSpace, spec: GaugeNetworkSpec) -> None:
        super().__init__()
        require_links(field)
        d = field.lattice.dimension
        if d < 2:
            raise ValueError(
                f"expected links in d >= 2 dimensions, got {field.lattice}: there are no small loops in one"
            )
        self.field, self.spec, self.symmetries = field, spec, spec.symmetries
        self.frames = Frames(d, spec.point_group)
        n_loops = sum(len(self.frames.loops(loop)) for loop in spec.loops)
        steps = list(pairwise((n_loops, *spec.channels)))
        self.convolutions = nn.ModuleList(TransportedConvolution(self.frames, step, spec.radius) for step in steps)
        self.products = nn.ModuleList(Bilinear(step) for step in steps)
        self.gates = nn.ModuleList(TraceGate(n, spec.n_context) for n in spec.channels)

    def forward(self, x: Tensor, context: Tensor | None = None, frozen: Tensor | None = None) -> Tensor:
        u, c = self.links(x, frozen), self.checked(context)
        w = loop_features(u, self.spec.loops, self.frames)
        for convolution, product, gate in zip(self.convolutions, self.products, self.gates):
            w = gate(product(w, convolution(u, w)), c)
        return w

    def links(self, x: Tensor, frozen: Tensor | None = None) -> Tensor:  # (batch, *event) -> (batch, d, *extents, N, N)
        """The frozen links as matrices, zeros for the others."""
        u = matrices(self.field, x)
        if frozen is None:
            return u
        cells = (self.field.lattice.dimension, *self.field.lattice.extents)
        if tuple(frozen.shape) != cells:
            raise ValueError(f"expected a mask of links of shape {cells}, got {tuple(frozen.shape)}: one entry each")
        return u * frozen.to(u)[..., None, None]

    def checked(self, context: Tensor | None) -> Tensor | None:
        """The context, if this network reads one."""
        return checked_context(context, self.spec.n_context) if self.spec.n_context else None


@final
class GaugeNetwork(nn.Module):
    """Gauge-invariant numbers on sites: a perceptron of the traces of a `GaugeTrunk`, zero for a new network.

        p(x) = A ⟨silu(B [Re Tr W_i(x) / N, c] + b)⟩_i + a,  A = a = 0 at the start, i the frames;

    Im Tr W / N is read as well where charge conjugation is given up. For numbers on plaquettes or links ask for as
    many outputs as there are planes or axes: without `point_group` they know their directions.

    Args:
        field: links of U(1) or SU(N), d >= 2.
        n_outputs: numbers for each site.
        spec: channels, radius, loops, symmetries and context.

    Shape: (batch, *event) -> (batch, n_outputs, *extents), in the precision of the links.
    Symmetries: gauge, centre; translations and the point group move sites; charge conjugation as the spec says.
    References: Favoni, Ipp, Müller and Schuh 2020, arXiv:2012.12901.
    """

    def __init__(self, field: FieldSpace, n_outputs: int, spec: GaugeNetworkSpec | None = None) -> None:
        super().__init__()
        if n_outputs < 1:
            raise ValueError(f"expected n_outputs >= 1, got {n_outputs}: ask for at least one number per site")
        self.spec = spec or GaugeNetworkSpec()
        self.trunk, self.symmetries = GaugeTrunk(field, self.spec), self.spec.symmetries
        n_traces = self.spec.channels[-1] * (1 if self.spec.charge_conjugation else 2)
        self.hidden = nn.Linear(n_traces + self.spec.n_context, self.spec.hidden, dtype=torch.float64)
        self.out = nn.Linear(self.spec.hidden, n_outputs, dtype=torch.float64)
        for weight in self.out.parameters():
            nn.init.zeros_(weight)

    @property
    def field(self) -> FieldSpace:
        """The links it reads."""
        return self.trunk.field

    def forward(self, x: Tensor, context: Tensor | None = None, frozen: Tensor | None = None) -> Tensor:
        return self.read_out(self.trunk(x, context, frozen), context)

    def read_out(self, w: Tensor, context: Tensor | None = None) -> Tensor:  # -> (batch, n_outputs, *extents)
        """The perceptron, on the traces of the trunk's W."""
        traces = [real_trace(w)] if self.spec.charge_conjugation else [real_trace(w), real_trace(-1j * w)]
        t = torch.cat(traces, 1).movedim(1, -1)
        if (c := self.trunk.checked(context)) is not None:
            told = c.to(t).reshape(len(c), *(1 for _ in t.shape[1:-1]), -1)
            t = torch.cat([t, told.expand(*t.shape[:-1], -1)], -1)
        return _linear(self.out, F.silu(_linear(self.hidden, t)).mean(1)).movedim(-1, 1)

    @classmethod
    def examples(cls) -> Iterator[GaugeNetwork]:
        """U(1), SU(2) and SU(3), in two to four dimensions, with every option."""
        symmetric = GaugeNetworkSpec((3, 2), hidden=4, point_group=True, n_context=1)
        yield cls(link_field((3, 4), 1), 2, GaugeNetworkSpec((2, 3), radius=2, hidden=4))
        yield cls(link_field((4, 4), 2), 1, symmetric)
        yield cls(link_field((3, 2, 3), 2), 3, GaugeNetworkSpec((2,), hidden=4, charge_conjugation=False))
        yield cls(link_field((2, 2, 2, 2), 3), 1, GaugeNetworkSpec((1,), hidden=4, point_group=True))


@final
class AlgebraNetwork(nn.Module):
    """Elements of the algebra on links that transform as v_μ(x) ↦ Ω(x) v_μ(x) Ω(x)†; zero for a new network.

        v_μ(x) = Σ_l ½ (s_l(x) + s_l(x + μ̂)) [U_μ A_{l,μ}] + Σ_ci [a_ci(μ) W_ci(x) - a_ci(-μ) U_μ W_ci(x + μ̂) U_μ†],

    [·] the projection on the algebra, A_l the staples of loop l, s a `GaugeNetwork` and W its trunk. With
    `point_group`, a_ci(±μ) depends on the angle of frame and link alone; without it, s and a depend on μ. exp(v) U is
    then an equivariant map of links, v an equivariant velocity.
    With a mask of `frozen` links, v of every other link depends on the frozen links and that one link only: the
    Jacobian of moving those is one block per link.

    Args:
        field: links of U(1) or SU(N), d >= 2.
        spec: channels, radius, loops (each through a link at most once), symmetries and context.

    Shape: (batch, *event) -> (batch, *event): anti-Hermitian traceless matrices, real numbers for U(1).
    Symmetries: gauge, centre, translations; the point group and charge conjugation as the spec says.
    References: Favoni, Ipp, Müller and Schuh 2020, arXiv:2012.12901; Lüscher 2009, arXiv:0907.5491.
    """

    shared: Tensor

    def __init__(self, field: FieldSpace, spec: GaugeNetworkSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or GaugeNetworkSpec()
        n_axes = 1 if self.spec.point_group else field.lattice.dimension
        self.strengths = GaugeNetwork(field, len(self.spec.loops) * n_axes, self.spec)
        self.register_buffer("shared", self.strengths.trunk.frames.directions(), persistent=False)
        self.ends = nn.Parameter(torch.zeros(self.spec.channels[-1], int(self.shared.max()) + 1, dtype=torch.float64))
        self.field, self.symmetries = field, self.spec.symmetries

    def forward(self, x: Tensor, context: Tensor | None = None, frozen: Tensor | None = None) -> Tensor:
        trunk, links = self.strengths.trunk, matrices(self.field, x)
        w, u = trunk(x, context, frozen), trunk.links(x, frozen)
        s = self.strengths.read_out(w, context)
        through = torch.stack([links @ staples(u, loop) for loop in self.spec.loops], 1)
        v = self._weighted(s, through) + self._ends(links, w)
        return traceless_anti_hermitian(v) if self.field.target.shape else v.imag.squeeze(-1).squeeze(-1)

    def _ends(self, links: Tensor, w: Tensor) -> Tensor:  # -> (batch, d, *extents, N, N)
        """Σ_ci a_ci(μ) W_ci(x) - a_ci(-μ) W_ci(x + μ̂), carried to x: turning a link round changes the sign."""
        begin, end = self.ends[:, self.shared].to(w.dtype).chunk(2, -1)  # (channels, frames, d)
        ahead = torch.stack([transported(links, w, axis + 1) for axis in range(links.shape[1])], 3)
        return torch.einsum("cim,nci...->nm...", begin, w) - torch.einsum("cim,ncim...->nm...", end, ahead)

    def _weighted(self, s: Tensor, through: Tensor) -> Tensor:  # (batch, loops, d, *extents, N, N) -> (batch, d, …)
        """Σ_l ½ (s_l(x) + s_l(x + μ̂)) U A_l."""
        d = through.shape[2]
        s = s.unflatten(1, (len(self.spec.loops), -1))[..., None, None].expand(-1, -1, d, *through.shape[3:-2], 1, 1)
        ahead = torch.stack([shifted(s[:, :, axis], axis, 1, d) for axis in range(d)], 2)
        return ((s + ahead) / 2 * through).sum(1)

    @classmethod
    def examples(cls) -> Iterator[AlgebraNetwork]:
        """U(1), SU(2) and SU(3), in two and three dimensions, with and without the point group."""
        yield cls(link_field((3, 4), 1), GaugeNetworkSpec((2, 2), hidden=4, charge_conjugation=False))
        yield cls(link_field((4, 4), 2), GaugeNetworkSpec((2,), hidden=4, point_group=True, n_context=2))
        yield cls(link_field((2, 3, 3), 3), GaugeNetworkSpec((2,), hidden=4))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the precision of x."""
    return F.linear(x, layer.weight.to(x), layer.bias.to(x))
