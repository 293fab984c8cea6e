"""The one-plaquette model: exact sums against brute force, covariance, gradients, and the freedom of names."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from mlrg.cluster.bond import SQUARE, Bond
from mlrg.cluster.gibbs import CORNERS, contrastive_divergence, gibbs_teacher
from mlrg.cluster.plaquette import Plaquette, plaquette
from mlrg.cluster.spins import Spins
from mlrg.cluster.step import ExactStep

SMALL = [("S2", "A1"), ("S2", "A1+B1"), ("S2", "E"), ("Z3", "A1"), ("S3", "A1")]


def couplings(model: Plaquette, seed: int = 0, size: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(model.bond.n_couplings, generator=generator, dtype=torch.float64)


def brute_force(model: Plaquette, J: Tensor, bonds: tuple[tuple[int, int, int], ...], n_edges: int) -> Tensor:
    """log Σ_hidden e^{-E} with one loop over every state of every site."""
    table, n = model.log_bonds(model.bond.matrices(J)).tolist(), model.n_states
    visible_is_vertex = n_edges == 4 and len(bonds) == 8
    weights = torch.zeros((n,) * 4, dtype=torch.float64)
    for outer in product(range(n), repeat=4):
        for hidden in product(range(n), repeat=4 if visible_is_vertex else 1):
            edges, vertices = (hidden, outer) if visible_is_vertex else (outer, hidden)
            weights[outer] += math.exp(sum(table[r][edges[e]][vertices[v]] for e, v, r in bonds))
    return weights.log()


@pytest.mark.parametrize(("group", "representation"), [("S2", "A1"), ("Z3", "A1"), ("S2", "A1+B1")])
def test_enumeration_against_brute_force(group: str, representation: str) -> None:
    model = plaquette(group, representation)
    J = couplings(model)
    cross = tuple((i, 0, i) for i in range(4))
    torch.testing.assert_close(model.student(J), brute_force(model, J, cross, 4))
    if model.n_states < 4:
        torch.testing.assert_close(model.teacher(J), brute_force(model, J, CORNERS, 4))


@pytest.mark.parametrize("representation", ["A1", "A1+E", "2A1+E", "A2+B1+B2"])
def test_couplings_are_covariant_under_the_point_group(representation: str) -> None:
    bond = Bond(Spins("S2"), representation)
    J = couplings(Plaquette(bond))
    matrices = bond.matrices(J)[0]
    directions = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]])
    for g in SQUARE.elements:
        D = bond.on_site.matrix(g)
        image = [(directions == g @ r).all(-1).nonzero().item() for r in directions]
        torch.testing.assert_close(D @ matrices @ D.mT, matrices[image])
    assert bond.n_couplings == {"A1": 1, "A1+E": 5, "2A1+E": 10, "A2+B1+B2": 5}[representation]


def test_a_coupling_outside_the_invariants_breaks_covariance() -> None:
    bond = Bond(Spins("S2"), "A1+E")
    matrices = bond.matrices(couplings(Plaquette(bond)))[0].clone()
    matrices[:, 0, 2] += 1.0
    D = bond.on_site.matrix(torch.tensor([[1, 0], [0, -1]]))
    assert (D @ matrices[0] @ D.mT - matrices[0]).abs().max() > 0.5


@pytest.mark.parametrize(("group", "representation"), SMALL)
def test_a_turned_plaquette_has_the_same_weights(group: str, representation: str) -> None:
    model = plaquette(group, representation)
    if representation == "A1":
        for weight in (model.teacher(couplings(model)), model.student(couplings(model))):
            torch.testing.assert_close(weight, weight.permute(1, 2, 3, 0))
            torch.testing.assert_close(weight, weight.permute(3, 2, 1, 0))


def test_edge_summed_out_is_ising_decimation() -> None:
    model, K = plaquette(), 0.7
    log_w = model.teacher(torch.tensor([2 * K], dtype=torch.float64))
    effective = 0.5 * math.log(math.cosh(2 * K))
    assert (log_w[0, 0, 0, 0] - log_w[0, 1, 0, 1]).item() == pytest.approx(8 * effective, abs=1e-12)


@pytest.mark.parametrize("representation", ["A1", "A1+E", "2A1"])
def test_hidden_names_are_a_freedom_and_visible_names_are_not(representation: str) -> None:
    model = plaquette("S2", representation)
    bond, J = model.bond, couplings(model)
    names = bond.relabellings()
    torch.testing.assert_close(names[0], torch.eye(bond.on_site.dim, dtype=torch.float64))
    for u in names:
        torch.testing.assert_close(model.student(bond.relabel(J, names[0], u)), model.student(J))
        torch.testing.assert_close(model.teacher(bond.relabel(J, u, names[0])), model.teacher(J))
    if representation != "A1":
        moved = [(model.student(bond.relabel(J, u, names[0])) - model.student(J)).abs().max() for u in names]
        assert max(moved) > 0.1


def test_nearest_names_undo_a_relabelling() -> None:
    step = ExactStep(plaquette("S2", "2A1"), branch="free")
    bond, J = step.plaquette.bond, couplings(step.plaquette)
    for u in bond.relabellings():
        torch.testing.assert_close(step.nearest_names(bond.relabel(J, torch.eye(2), u), J), J)


def test_new_couplings_are_never_stale() -> None:
    model = plaquette()
    J = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    before = model.student(J).detach().clone()
    with torch.no_grad():
        J += 1.0  # what an optimiser does
    torch.testing.assert_close(model.student(J), model.student(torch.tensor([2.0], dtype=torch.float64)))
    assert (model.student(J) - before).abs().max() > 0.1


def test_gibbs_teacher_converges_to_the_exact_weights() -> None:
    model, generator = plaquette(), torch.Generator().manual_seed(3)
    J = torch.tensor([[1.0]], dtype=torch.float64)
    outer = gibbs_teacher(model, J, 20000, 30, generator)[0]
    counts = torch.bincount(outer @ torch.tensor([8, 4, 2, 1]), minlength=16) / 20000
    p = model.teacher(J[0]).flatten().softmax(0)
    assert ((counts - p).abs() < 4 * (p * (1 - p) / 20000).sqrt()).all()


def test_contrastive_divergence_vanishes_on_data_of_the_student() -> None:
    model, generator = plaquette(), torch.Generator().manual_seed(4)
    J = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
    slopes = []
    for true in (0.8, 1.6):
        p = model.student(torch.tensor([true], dtype=torch.float64)).flatten().softmax(0)
        states = torch.multinomial(p, 40000, replacement=True, generator=generator)
        outer = torch.stack([states // 8, states // 4 % 2, states // 2 % 2, states % 2], -1)[None]
        (slope,) = torch.autograd.grad(contrastive_divergence(model, J, outer, generator).sum(), J)
        slopes.append(slope.item())
    assert abs(slopes[0]) < 4 * 2 / math.sqrt(40000)
    assert slopes[1] < -0.1  # more order in the data: J has to grow


@pytest.mark.parametrize("name", ["A3", "A1+", "", "0A1", "A1-E"])
def test_unknown_representations_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a sum"):
        Bond(Spins("S2"), name)


def test_bad_models_are_refused() -> None:
    with pytest.raises(ValueError, match="group"):
        plaquette("S9")
    with pytest.raises(ValueError, match="at most"):
        plaquette("S3", "A1+E")
    with pytest.raises(ValueError, match="couplings"):
        plaquette().student(torch.zeros(2))
