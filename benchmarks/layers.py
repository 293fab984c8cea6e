"""Time and memory of our coupling layers against normflows' own, in one process with interleaved medians.

    python benchmarks/layers.py [--json]

All layers move 32 of the 64 sites of 1024 fields on 8 x 8, on one thread. `evaluate` is the density pass (data to
latent) or the sampling pass (latent to data), `backward` its gradient by the field and all parameters, `saved` what
autograd keeps for that, beyond the arguments. Compared are

    spline   normflows      PiecewiseRationalQuadraticCoupling around *our* network: only the layer differs (the unit)
             shipped        CoupledRationalQuadraticSpline as it comes: residual network of 64 units (no symmetry, about
                            as many operations), and a free spline on the other half
             packed         Coupling with RationalQuadraticSpline; odd: with OddSpline
    affine   normflows      MaskedAffineFlow, which takes two networks: two of ours with one parameter each
             packed         Coupling with Affine: one network with two parameters

with 8 bins and linear tails. `network` is the network of `packed` alone, a cost that the layers share: it is as dear as
the spline, and dearer in float64, where convolutions have no fast kernel. Compiled is `packed`, against normflows in
eager mode: its masks break the graph. The `packing` rows compare our layer with the same map whose transform and
network are evaluated at all sites, half of it thrown away (`masked`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import timing
import torch
from normflows.flows import CoupledRationalQuadraticSpline, MaskedAffineFlow
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from timing import Contestant, Row
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from a checkout without installing it

from flows.bijection import Bijection, Inverse
from flows.conditioners.conditioner import Conditioner
from flows.conditioners.parity_convolutions import ParityConvolutions
from flows.heap import keep_heap
from flows.layers.coupling import Coupling
from flows.normflows_bridge import FromNormflows
from flows.transforms.affine import Affine
from flows.transforms.elementwise import EVEN, ElementwiseTransform
from flows.transforms.odd_spline import OddSpline
from flows.transforms.spline import RationalQuadraticSpline
from lattices.fields import FieldSpace
from lattices.lattice import Lattice

LATTICE, BATCH, BINS, BOUND = Lattice((8, 8)), 1024, 8, 5.0
FIELD = FieldSpace(LATTICE)
DTYPES, DIRECTIONS = (torch.float32, torch.float64), ("density", "sampling")
BARS = {"spline": 0.60, "packing spline": 0.62, "packing affine": 0.62}  # of `packed`, in both passes


class OnHalf(nn.Module):
    """One of our networks as normflows' spline coupling calls it: frozen half in, parameters of the other half out."""

    hidden_features = 8  # the layer divides the logits of the bins by the root of this

    def __init__(self, network: Conditioner, frozen: Tensor, active: Tensor) -> None:
        super().__init__()
        self.network, self.frozen, self.active = network, frozen, active

    def forward(self, half: Tensor, context: Tensor | None = None) -> Tensor:
        field = half.new_zeros(len(half), LATTICE.volume).index_copy(1, self.frozen, half)
        return self.network(field.unflatten(1, LATTICE.extents), self.active, context).flatten(1)


class OnAll(nn.Module):
    """One of our networks as MaskedAffineFlow calls it: a field in, one parameter for every site out."""

    def __init__(self, network: Conditioner) -> None:
        super().__init__()
        self.network, self.sites = network, torch.arange(LATTICE.volume)

    def forward(self, field: Tensor) -> Tensor:
        return self.network(field, self.sites).view_as(field)


class Masked(Bijection):
    """A coupling of ours as one writes it without packing: the network and the transform at all sites."""

    def __init__(self, layer: Coupling) -> None:
        super().__init__()
        self.domain = self.codomain = layer.domain
        self.layer, self.everywhere = layer, OnAll(layer.conditioner).sites
        self.active = layer.partition.mask(layer.colour)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_transform(self.layer.transform.forward, z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_transform(self.layer.transform.inverse, x)

    def _apply_transform(self, transform: Callable[..., tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor]:
        parameters = self.layer.conditioner(x.masked_fill(self.active, 0.0), self.everywhere)
        moved, log_slope = transform(x, parameters.unflatten(1, LATTICE.extents))
        return torch.where(self.active, moved, x), log_slope.masked_fill(~self.active, 0.0).flatten(1).sum(1)


def coupling(transform: ElementwiseTransform) -> Coupling:
    """Our layer with its default network."""
    return Coupling(FIELD, transform, ParityConvolutions(LATTICE, transform.parity))


def spline_layers() -> dict[str, Bijection]:
    """Spline couplings; the first one is the unit."""
    packed = coupling(RationalQuadraticSpline(BINS, BOUND))
    active, frozen = packed.partition.indices
    theirs = PiecewiseRationalQuadraticCoupling(
        packed.partition.mask(0).flatten().long(),
        lambda *_: OnHalf(packed.conditioner, frozen, active),
        BINS,
        tails="linear",
        tail_bound=BOUND,
    )
    shipped = CoupledRationalQuadraticSpline(LATTICE.volume, 2, 64, num_bins=BINS, tail_bound=BOUND)
    return {
        "normflows": Inverse(FromNormflows(theirs, FIELD)),  # its forward map is the density pass
        "shipped": FromNormflows(shipped, FIELD),
        "packed": packed,
        "odd": coupling(OddSpline(BINS, BOUND)),
    }


def affine_layers() -> dict[str, Bijection]:
    """Affine couplings; the first one is the unit."""
    packed = coupling(Affine())
    shift, scale = (OnAll(ParityConvolutions(LATTICE, EVEN)) for _ in range(2))
    theirs = MaskedAffineFlow(packed.partition.mask(1).float(), shift, scale)
    return {"normflows": FromNormflows(theirs, FIELD, LATTICE.extents), "packed": packed}


def masked_layers(transform: ElementwiseTransform) -> dict[str, Bijection]:
    """The same coupling without and with packing; the first one is the unit."""
    packed = coupling(transform)
    return {"masked": Masked(packed), "packed": packed}


LAYERS: dict[str, Callable[[], dict[str, Bijection]]] = {
    "spline": spline_layers,
    "affine": affine_layers,
    "packing spline": partial(masked_layers, RationalQuadraticSpline(BINS, BOUND)),
    "packing affine": partial(masked_layers, Affine()),
}


def contestant(layer: Bijection, direction: str, x: Tensor, compiled: bool) -> tuple[Contestant, float]:
    """A pass through a layer, and the seconds it took to compile it and its backward pass."""
    map_: Callable[..., tuple[Tensor, Tensor]] = layer.inverse if direction == "density" else layer.forward
    if compiled:
        map_ = torch.compile(map_, fullgraph=True, dynamic=False)
    own = Contestant(partial(map_, x), (x, *(p for p in layer.parameters() if p.requires_grad)))
    return own, own.seconds()[2] if compiled else 0.0


def network(layer: Coupling, x: Tensor) -> tuple[Tensor]:
    """The parameters of a layer, and nothing done with them."""
    return (layer.conditioner(x, layer.partition.indices[layer.colour]),)


def compare(kind: str, mode: str, dtype: torch.dtype, direction: str, n_fields: int = BATCH, n: int = 11) -> list[Row]:
    """Time all layers of one kind in one setting; one row per layer."""
    compiled = mode == "compiled"
    torch._dynamo.reset()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = {name: perturbed(layer).to(dtype) for name, layer in LAYERS[kind]().items()}
    if compiled:
        layers = {name: layers[name] for name in ("normflows", "packed")}
    x = FIELD.random(n_fields, torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    made = {name: contestant(layer, direction, x, compiled and name == "packed") for name, layer in layers.items()}
    made["network"] = Contestant(partial(network, layers["packed"], x), made["packed"][0].leaves), 0.0
    rows = timing.compare({name: own for name, (own, _) in made.items()}, n)
    setting = {"kind": kind, "mode": mode, "dtype": str(dtype).removeprefix("torch."), "direction": direction}
    for row in rows:
        bar = BARS.get(kind) if row["map"] == "packed" else None
        row.update(setting, compile_seconds=made[row["map"]][1], bar=bar, bar_on="evaluate")
    return rows


def perturbed(layer: Bijection) -> Bijection:
    """The layer with random parameters: new ones are the identity, which might be cheaper."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.2)
    return layer


def within_bars(rows: list[Row]) -> bool:
    """Say whether every row that has a bar meets it."""
    return all(row["evaluate_ratio"] <= row["bar"] for row in rows if row["bar"])


def line(row: Row) -> str:
    words = f"{row['kind']:15}{row['mode']:9}{row['dtype']:8}{row['direction']:9}{row['map']:10}"
    return (
        words + timing.line(row) + (f"   compiled in {row['compile_seconds']:.0f} s" if row["compile_seconds"] else "")
    )


def main() -> None:
    torch.set_num_threads(1)
    keep_heap()
    print(f"{'':51}{timing.HEADER}")
    rows: list[Row] = []
    modes = [*((kind, "eager") for kind in LAYERS), ("spline", "compiled"), ("affine", "compiled")]
    for (kind, mode), dtype, direction in product(modes, DTYPES, DIRECTIONS):
        new = compare(kind, mode, dtype, direction)
        print(*map(line, new), sep="\n", flush=True)
        rows += new
    if "--json" in sys.argv[1:]:
        result = {"case": "layers", "within_bars": within_bars(rows), "hardware": timing.hardware()}
        print(json.dumps({**result, "rows": rows}))


if __name__ == "__main__":
    main()
