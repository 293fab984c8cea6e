"""Mistakes of users, through the public entry points: each is refused, and says what was expected, got, and to do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from flows import cli
from flows.architectures.continuous import Continuous
from flows.architectures.coupling import CouplingFlow
from flows.bases import GaussianField, White
from flows.distribution import Distribution, Transformed
from flows.free_energy import ThermodynamicIntegration, bar, bounds, log_z
from flows.layers.continuous import ContinuousFlow
from flows.layers.fourier import FourierScaling
from flows.objectives import ForwardKL
from flows.sampling.annealing import Annealing
from flows.sampling.cluster import SwendsenWang, Wolff
from flows.sampling.density import Conditioned, Density
from flows.sampling.hmc import HMC
from flows.sampling.independence import IndependenceMetropolis, metropolise
from flows.sampling.kernel import Kernel, run
from flows.sampling.latent import Latent, PulledBack
from flows.sampling.local import LocalMetropolis, SpinHeatBath
from flows.sampling.reweighting import reweight
from flows.training import Settings, fit
from flows.updates.gradient import GradientUpdate
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.action import Action
from lattices.fields import FieldSpace, Links, Sphere
from lattices.lattice import Lattice
from lattices.partitions import checkerboard
from lattices.statistics import (
    chain_mean,
    effective_sample_size,
    integrated_autocorrelation_time,
    jackknife,
    log_mean_exp,
    reweighted_mean,
)
from lattices.theories import theory
from lattices.theories.free_field import FreeField
from lattices.theories.ising import Ising
from lattices.theories.ising_dual import IsingDual
from lattices.theories.phi4 import Phi4, Phi4Family
from lattices.theories.scalar import Scalar
from symmetries.lie import SU2

Call = Callable[[], Any]
Cases = dict[str, tuple[type[Exception], Call]]

ACTION = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
ODD = Phi4(extents=(3, 4), mass_squared=1.0, quartic=1.0)
OTHER = Phi4(extents=(6, 6), mass_squared=1.0, quartic=1.0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fields(n: int = 3) -> Tensor:
    return ACTION.field.random(n, generator())


def flow(n_context: int = 0, coupling: bool = False) -> Transformed:
    if coupling:
        return CouplingFlow(n_layers=2, hidden=(2,), n_context=n_context).build(ACTION)
    return Continuous(frequencies=(1.0,), radius=1.0, tails=(), n_times=1, n_steps=2, n_context=n_context).build(ACTION)


def hmc() -> HMC:
    return HMC(ACTION, 0.1, 3)


def state(kernel: Kernel) -> Any:
    return kernel.init(fields())


def check(error: type[Exception], call: Call) -> None:
    """The error is of the right type, and its message reads: expected …, got …: do this."""
    with pytest.raises(error) as caught:
        call()
    assert re.search(r"expected .+got .+: \S", str(caught.value), re.DOTALL), str(caught.value)


def every(cases: Cases) -> pytest.MarkDecorator:
    parameters = [pytest.param(*case, id=name.replace(" ", "-")) for name, case in cases.items()]
    return pytest.mark.parametrize(("error", "call"), parameters)


FIELDS: Cases = {
    "wrong shape": (ValueError, lambda: fields()[:, :3]),
    "no batch axis": (ValueError, lambda: fields()[0]),
    "empty batch": (ValueError, lambda: fields()[:0]),
    "integers": (TypeError, lambda: fields().long()),
    "complex numbers": (TypeError, lambda: fields().to(torch.complex128)),
    "numpy": (TypeError, lambda: fields().numpy()),
    "nan": (ValueError, lambda: fields().index_fill(0, torch.tensor(1), math.nan)),
    "inf": (ValueError, lambda: fields().index_fill(0, torch.tensor(1), math.inf)),
}
TAKERS: dict[str, Callable[[Tensor], Any]] = {
    "action": ACTION,
    "continuous flow": lambda x: flow().log_prob(x),
    "coupling flow": lambda x: flow(coupling=True).log_prob(x),
    "HMC": lambda x: hmc().init(x),
    "latent HMC": lambda x: Latent(PulledBack(ACTION, flow().bijection), hmc()).init(x),
    "independence": lambda x: IndependenceMetropolis(ACTION, flow()).init(x),
    "local": lambda x: LocalMetropolis(ACTION, 0.5).init(x),
    "cluster": lambda x: SwendsenWang(ACTION).init(x),
}


@pytest.mark.parametrize("taker", TAKERS)
@every(FIELDS)
def test_bad_fields_are_refused_at_every_door(taker: str, error: type[Exception], call: Call) -> None:
    check(error, lambda: TAKERS[taker](call()))


@pytest.mark.parametrize("base", [White(ACTION.field), GaussianField.of(ACTION)], ids=lambda b: type(b).__name__)
@pytest.mark.parametrize("bad", ["wrong shape", "no batch axis", "empty batch", "integers", "complex numbers", "numpy"])
def test_bases_refuse_what_would_broadcast(base: Distribution, bad: str) -> None:
    error, call = FIELDS[bad]
    check(error, lambda: base.log_prob(call()))


def test_first_bad_configuration_is_named() -> None:
    with pytest.raises(ValueError, match=r"in 1 of 3 configurations \(first: number 1\)"):
        ACTION(FIELDS["nan"][1]())


MANIFOLDS: Cases = {
    "spins between": (ValueError, lambda: Ising((4, 4), 0.4)(fields())),
    "off the sphere": (ValueError, lambda: FieldSpace(Lattice((4,)), Sphere(2)).validate(torch.ones(1, 4, 3))),
    "real links": (TypeError, lambda: FieldSpace(Lattice((4,)), Links(SU2()), "links").validate(torch.ones(1))),
    "cells": (ValueError, lambda: FieldSpace(Lattice((4, 4)), cells="plaquettes")),
}

DTYPES: Cases = {
    "continuous flow": (TypeError, lambda: flow().log_prob(fields().float())),
    "coupling flow": (TypeError, lambda: flow(coupling=True).log_prob(fields().float())),
    "white": (TypeError, lambda: White(ACTION.field).log_prob(fields().float())),
    "gaussian": (TypeError, lambda: GaussianField.of(ACTION, torch.float32).log_prob(fields())),
    "latent": (TypeError, lambda: Latent(PulledBack(ACTION, flow().bijection), hmc()).init(fields().float())),
    "base and layer": (
        TypeError,
        lambda: Transformed(White(ACTION.field), FourierScaling(ACTION.field, 0, torch.float32)),
    ),
    "context": (TypeError, lambda: flow(2).log_prob(fields(), torch.zeros(3, 2))),
    "integer context": (TypeError, lambda: flow(2, coupling=True).sample(3, torch.zeros(3, 2).long(), generator())),
    "list as context": (TypeError, lambda: flow(2).sample(3, [[0.0, 0.0]] * 3, generator())),  # type: ignore[arg-type]
}


def couplings(*shape: int, value: float = 0.0) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


CONTEXTS: Cases = {
    f"{kind} {name}": (
        ValueError,
        lambda coupling=coupling, context=context: flow(2, coupling).log_prob(fields(), context),
    )
    for kind, coupling in (("continuous", False), ("coupling", True))
    for name, context in {
        "none": None,
        "too wide": couplings(3, 3),
        "one axis": couplings(2),
        "other batch": couplings(2, 2),
        "nan": couplings(3, 2, value=math.nan),
    }.items()
}
CONTEXTS |= {
    "conditioned in two axes": (ValueError, lambda: Conditioned(flow(2), couplings(1, 2))),
    "conditioned too wide": (ValueError, lambda: Conditioned(flow(2), couplings(3)).sample(2, generator=generator())),
    "not asked for": (ValueError, lambda: flow().log_prob(fields(), couplings(3, 2))),
    "family": (ValueError, lambda: Phi4Family((4, 4)).energy(fields(), couplings(2))),
    "family at": (ValueError, lambda: Phi4Family((4, 4)).at(couplings(2))),
}

LATTICES: Cases = {
    "zero": (ValueError, lambda: Lattice((0, 4))),
    "negative": (ValueError, lambda: Lattice((-2, 4))),
    "half": (ValueError, lambda: Lattice((4.5, 4))),  # type: ignore[arg-type]
    "five dimensions": (ValueError, lambda: Lattice((2,) * 5)),
    "none": (ValueError, lambda: Lattice(())),
    "a number": (TypeError, lambda: Lattice(8)),  # type: ignore[arg-type]
    "theory": (ValueError, lambda: Phi4((4, -4), 1.0, 1.0)),
    "theory of a number": (TypeError, lambda: Phi4(8, 1.0, 1.0)),  # type: ignore[arg-type]
    "odd checkerboard": (ValueError, lambda: checkerboard(Lattice((3, 4)))),
    "odd coupling flow": (ValueError, lambda: CouplingFlow().build(ODD)),
    "odd local": (ValueError, lambda: LocalMetropolis(ODD, 0.5)),
    "odd heat bath": (ValueError, lambda: SpinHeatBath(Ising((3, 4), 0.3))),
    "flow and action": (ValueError, lambda: reweight(flow(), OTHER, 10, generator())),
    "flow and target of a fit": (
        ValueError,
        lambda: fit(Problem(flow(), OTHER), NaturalGradient(), 1, generator=generator()),
    ),
    "base and layer": (ValueError, lambda: Transformed(White(OTHER.field), FourierScaling(ACTION.field))),
    "base and annealing": (ValueError, lambda: Annealing(White(OTHER.field), ACTION, lambda action: hmc())),
    "proposal": (ValueError, lambda: IndependenceMetropolis(OTHER, flow())),
    "sum of actions": (ValueError, lambda: ACTION + OTHER),
    "square to rectangle": (ValueError, lambda: _layer().transferred(Lattice((4, 8)))),
    "square to cube": (ValueError, lambda: _layer().transferred(Lattice((4, 4, 4)))),
}

THEORIES: Cases = {
    "quartic below zero": (ValueError, lambda: Phi4((4, 4), 1.0, -1.0)),
    "no quartic and no mass": (ValueError, lambda: Phi4((4, 4), 0.0, 0.0)),
    "no quartic and unstable": (ValueError, lambda: Phi4((4, 4), -1.0, 0.0)),
    "massless free field": (ValueError, lambda: FreeField((4, 4), 0.0)),
    "sextic below zero": (ValueError, lambda: Scalar((4, 4), sextic=-1.0)),
    "kinetic below zero": (ValueError, lambda: Scalar((4, 4), kinetic=-1.0)),
    "margin": (ValueError, lambda: IsingDual((4, 4), 0.4, margin=0.0)),
    "nan": (ValueError, lambda: Phi4((4, 4), math.nan, 1.0)),
    "text": (TypeError, lambda: Phi4((4, 4), "light", 1.0)),  # type: ignore[arg-type]
    "unknown": (ValueError, lambda: theory("phi5")),
    "unknown operator": (ValueError, lambda: Phi4Family((4, 4), names=("octic",))),
    "form": (ValueError, lambda: Phi4.from_form_d((4, 4), -0.2, 1.0)),
    "constant": (TypeError, lambda: ACTION + 3),  # type: ignore[operator]
    "product": (TypeError, lambda: ACTION * ACTION),  # type: ignore[operator]
    "infinite factor": (TypeError, lambda: math.inf * ACTION),
}

COUNTS: Cases = {
    "fit": (ValueError, lambda: fit(Problem(flow(), ACTION), NaturalGradient(), -1, generator=generator())),
    "checkpoints": (ValueError, lambda: Settings(checkpoint_every=0)),
    "run": (ValueError, lambda: run(hmc(), state(hmc()), -1, generator())),
    "leapfrog": (ValueError, lambda: HMC(ACTION, 0.1, -3)),
    "step size": (ValueError, lambda: HMC(ACTION, -0.1, 3)),
    "warm-up of HMC": (ValueError, lambda: hmc().adapt(state(hmc()), -1, generator())),
    "warm-up of clusters": (ValueError, lambda: Wolff(ACTION).adapt(state(Wolff(ACTION)), -1, generator())),
    "integration": (ValueError, lambda: ContinuousFlow(ACTION.field, n_steps=-1)),
    "layers": (ValueError, lambda: CouplingFlow(n_layers=-2)),
    "stages": (ValueError, lambda: Annealing(GaussianField.of(ACTION), ACTION, lambda action: hmc(), n_stages=0)),
    "nodes": (ValueError, lambda: ThermodynamicIntegration(ACTION, ACTION, lambda action: hmc(), n_nodes=-1)),
    "samples of a flow": (ValueError, lambda: flow().sample(-1, generator=generator())),
    "samples of a field": (ValueError, lambda: ACTION.field.random(0, generator())),
    "samples of a step": (ValueError, lambda: NaturalGradient(n_samples=1)),
    "average of a step": (ValueError, lambda: NaturalGradient(decay=-0.1)),
    "batch": (ValueError, lambda: GradientUpdate(batch_size=-8)),
    "method": (ValueError, lambda: ContinuousFlow(ACTION.field, method="euler")),
    "integrator": (ValueError, lambda: HMC(ACTION, 0.1, 3, "euler")),
    "frozen flow": (ValueError, lambda: fit(Problem(_frozen(), ACTION), NaturalGradient(), 1, generator=generator())),
    "seed for a generator": (TypeError, lambda: reweight(flow(), ACTION, 10, 0)),  # type: ignore[arg-type]
}

STATISTICS: Cases = {
    "reweight": (ValueError, lambda: reweight(flow(), ACTION, 1, generator())),
    "chunk": (ValueError, lambda: reweight(flow(), ACTION, 10, generator(), chunk=0)),
    "metropolise": (ValueError, lambda: metropolise(torch.zeros(1), generator())),
    "effective sample size": (ValueError, lambda: effective_sample_size([0.0])),
    "log mean exp": (ValueError, lambda: log_mean_exp([0.0])),
    "reweighted mean": (ValueError, lambda: reweighted_mean([1.0], [0.0])),
    "lengths": (ValueError, lambda: reweighted_mean([1.0, 2.0], [0.0, 0.0, 0.0])),
    "jackknife": (ValueError, lambda: jackknife(lambda mean: mean, [1.0])),
    "chain mean": (ValueError, lambda: chain_mean([[1.0]])),
    "autocorrelation": (ValueError, lambda: integrated_autocorrelation_time([[1.0]])),
    "chain without axis": (ValueError, lambda: chain_mean([1.0, 2.0, 3.0])),
    "nan": (ValueError, lambda: log_mean_exp([0.0, math.nan])),
    "no weight": (ValueError, lambda: effective_sample_size([-math.inf, -math.inf])),
    "log z": (ValueError, lambda: log_z(torch.zeros(1))),
    "bar": (ValueError, lambda: bar(torch.zeros(1), torch.zeros(5))),
    "bounds": (ValueError, lambda: bounds(torch.zeros(5), torch.full((5,), math.nan))),
    "forward data": (ValueError, lambda: ForwardKL(fields(1))),
    "generator": (TypeError, lambda: effective_sample_size([0.0, 1.0], 3)),  # type: ignore[arg-type]
}


@every({f"{noun} {name}": case for noun, cases in {
    "manifold": MANIFOLDS, "dtype": DTYPES, "context": CONTEXTS, "lattice": LATTICES, "theory": THEORIES,
    "count": COUNTS, "statistics": STATISTICS,
}.items() for name, case in cases.items()})  # fmt: skip
def test_a_mistake_is_explained(error: type[Exception], call: Call) -> None:
    check(error, call)


@pytest.mark.parametrize(
    "words",
    [
        "train phi5 --extents 4 4",
        "train phi4 --extents 4 0 --mass-squared 1 --quartic 1",
        "train phi4 --extents 3 4 --mass-squared 1 --quartic 1 --architecture coupling",
        "train phi4 --extents 4 4 --mass-squared -1 --quartic 0",
        "train phi4 --extents 4 4 --mass-squared 1 --quartic 1 --n-steps -1",
        "hmc phi4 --extents 4 4 --mass-squared 1 --quartic 1 --n-steps 1",
        "sample nowhere",
        "sample --pretrained nothing",
    ],
)
def test_the_command_line_explains_too(
    words: str, capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    assert re.search(r"expected .+got .+: \S", capsys.readouterr().err)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("coupling", [False, True])
def test_diverged_trajectories_are_refused_where_a_flow_is_the_action(coupling: bool) -> None:
    path: Action = 0.5 * Density(flow(coupling=coupling)) + 0.5 * ACTION
    kernel = HMC(path, 1e3, 10)
    history = run(kernel, kernel.init(fields()), 2, generator())
    assert not history.accepted.any()
    assert torch.equal(history.state.x, fields())


def test_density_is_infinite_only_where_it_must_be() -> None:
    density, bad = Density(flow()), FIELDS["nan"][1]()
    energy, force = density.energy(bad), density.force(bad)
    torch.testing.assert_close(energy[::2], density.energy(fields()[::2]))
    torch.testing.assert_close(force[::2], density.force(fields()[::2]))
    assert energy[1] == math.inf
    assert force[1].isnan().all()


def test_natural_gradient_leaves_frozen_parameters_alone() -> None:
    problem = Problem(flow(coupling=True), ACTION)
    first, *rest = problem.flow.parameters()
    first.requires_grad_(False)
    before = [p.detach().clone() for p in (first, *rest)]
    fit(problem, NaturalGradient(n_samples=64, damping=1.0), 1, generator=generator())
    assert torch.equal(first, before[0])
    assert any(not torch.equal(p, old) for p, old in zip(rest, before[1:]))


def test_one_row_of_context_is_every_row() -> None:
    for coupling in (False, True):
        q, one = flow(2, coupling), couplings(1, 2, value=0.3)
        assert torch.equal(q.log_prob(fields(), one), q.log_prob(fields(), one.expand(3, -1)))


def test_inputs_are_never_edited() -> None:
    x, momentum_free = fields(), replace(hmc(), n_steps=1)
    before, kernels = x.clone(), (momentum_free, LocalMetropolis(ACTION, 0.5), Wolff(ACTION))
    flow(coupling=True).log_prob(x)
    for kernel in kernels:
        run(kernel, kernel.init(x), 2, generator())
    assert torch.equal(x, before)


def _layer() -> ContinuousFlow:
    layer = flow().bijection
    assert isinstance(layer, ContinuousFlow)
    return layer


def _frozen() -> Transformed:
    return flow().requires_grad_(False)
