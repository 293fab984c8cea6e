"""Two gloo processes do what one does: same gradient, different samples, global weights, portable checkpoints."""

from __future__ import annotations

import multiprocessing as context
import os
import shutil
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from flows import parallel
from flows.objectives import ForwardKL, LogVariance, ReverseKL
from flows.training import Settings, batch_ess, fit
from flows.updates.gradient import GradientUpdate
from lattices.statistics import log_mean_exp
from tests.tiny_flows import Affine, SinhArcsinh, generator, gradient, problem

RANKS, N = 2, 16
UPDATE = GradientUpdate(learning_rate=0.05, batch_size=N)
OBJECTIVES = {"path": ReverseKL(), "plain": ReverseKL(path_gradient=False)}
Results = dict[str, Any]


def gradients(directory: Path) -> Results:
    """One backward pass over half of the batch, for each objective."""
    found: Results = {}
    for name, objective in OBJECTIVES.items():
        of, own = problem(Affine(), SinhArcsinh()), parallel.rank_generator(5, "samples")
        value, log_weights = parallel.evaluate(objective, of, parallel.share(N), own)
        value.backward()
        parameters = [p for p in of.flow.parameters() if p.requires_grad]
        latents = of.flow.base.sample(N // RANKS, generator=parallel.rank_generator(5, "samples"))
        found[f"{name} gradient"] = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
        found[f"{name} weights"] = parallel.gather(log_weights)
        found[f"{name} latents"] = parallel.gather(latents)
    return found


def trained(directory: Path) -> Results:
    """Two ranks that begin with different parameters and the same generator."""
    of = problem(Affine(0.3 + parallel.rank()))
    result = fit(of, UPDATE, 6, generator=generator(3), settings=Settings(directory / "run", checkpoint_every=3))
    flows = parallel.gather_objects(of.flow.state_dict())
    return {"flows": flows, "history": result.history}


def resumed(directory: Path) -> Results:
    """From the checkpoint at step 3, on two ranks again."""
    if parallel.rank() == 0:
        shutil.copytree(directory / "run", directory / "again")
        shutil.rmtree(directory / "again/checkpoints/step-00000006")
    of, settings = problem(), Settings(directory / "again", checkpoint_every=3, resume=True)
    result = fit(of, UPDATE, 6, generator=generator(99), settings=settings)
    return {"resumed flows": parallel.gather_objects(of.flow.state_dict()), "resumed from": result.resumed_from}


def broken(directory: Path) -> Results:
    """Only rank 1 sees a non-finite loss; both must undo the step."""

    def objective(*arguments: Any) -> Any:
        loss = ReverseKL()(*arguments)
        return loss._replace(value=loss.value * (torch.nan if parallel.rank() else 1))

    of = problem()
    before = of.flow.state_dict()["bijection.layers.0.shift"].clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fit(of, replace(UPDATE, objective=objective), 1, generator=generator())
    after = of.flow.state_dict()["bijection.layers.0.shift"]
    return {"rejected": parallel.gather_objects((result.rejected, torch.equal(before, after)))}


def variants(directory: Path) -> Results:
    """Objectives that leave some parameters without a gradient, and a callback that stops on one rank only."""
    of, found = problem(trainable_base=True), {}
    for name, objective in {"forward": ForwardKL(torch.ones(9, 2, 2).double()), "variance": LogVariance()}.items():
        result = fit(of, replace(UPDATE, objective=objective), 2, generator=generator())
        found[name] = [record["loss"] for record in result.history]
    stopping = fit(of, UPDATE, 5, generator=generator(), callback=lambda r: parallel.rank() == 1 and r["step"] == 2)
    return {**found, "stopped": parallel.gather_objects(len(stopping.history))}


def unequal(directory: Path) -> Results:
    rows = torch.full((1 + parallel.rank(), 2), float(parallel.rank()))
    return {"gathered": parallel.gather(rows), "from main": parallel.from_main(lambda: f"rank {parallel.rank()}")}


def worker(rank: int, port: int, directory: Path) -> None:
    settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": RANKS, "LOCAL_WORLD_SIZE": RANKS, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in settings.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    found: Results = {}
    with parallel.session():
        found["ranks"] = parallel.gather_objects((parallel.rank(), parallel.world_size()))
        for part in (gradients, trained, resumed, broken, variants, unequal):
            found |= part(directory)
        if parallel.rank() == 0:
            torch.save(found, directory / "results.pt")
    if parallel.world_size() != 1:
        raise RuntimeError("the session did not end")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have done everything above, once."""
    path = tmp_path_factory.mktemp("parallel")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # imports once; forks before anything has run
    multiprocessing.start_processes(worker, (port, path), nprocs=RANKS, start_method="forkserver")
    return path


@pytest.fixture(scope="module")
def results(directory: Path) -> Results:
    return torch.load(directory / "results.pt", weights_only=True)


def test_both_processes_took_part(results: Results) -> None:
    assert results["ranks"] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_is_that_of_one_process_on_the_joined_batch(results: Results, name: str) -> None:
    of = problem(Affine(), SinhArcsinh())
    of.flow.base.recorded = results[f"{name} latents"]  # type: ignore[union-attr]
    joined = OBJECTIVES[name](of, N, generator())
    expected = gradient(of, joined.value)
    torch.testing.assert_close(results[f"{name} gradient"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[f"{name} weights"], joined.log_weights, rtol=1e-12, atol=1e-12)
    of.flow.base.recorded = of.flow.base.recorded.roll(1, 1) + 0.1  # type: ignore[union-attr]
    other = gradient(of, OBJECTIVES[name](of, N, generator()).value)
    assert (results[f"{name} gradient"] - other).abs().max() > 1e-3  # the comparison can fail


def test_ranks_draw_different_samples(results: Results) -> None:
    first, second = results["path latents"].chunk(RANKS)
    assert not torch.isclose(first, second).any()


def test_effective_sample_size_and_log_z_are_global(results: Results) -> None:
    log_weights = results["path weights"]
    halves = [batch_ess(half) for half in log_weights.chunk(RANKS)]
    assert len(log_weights) == N
    assert batch_ess(log_weights) not in halves
    estimate = log_mean_exp(log_weights)
    assert estimate.n == N
    assert estimate.value == pytest.approx(float(torch.logsumexp(log_weights, 0) - torch.tensor(float(N)).log()))


def test_ranks_stay_together_from_different_beginnings(results: Results) -> None:
    first, second = results["flows"]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert [record["n"] for record in results["history"]] == [N] * 6


def test_rank_zero_alone_writes(results: Results, directory: Path) -> None:
    lines = (directory / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6


def test_two_ranks_resume_on_two_bit_for_bit(results: Results) -> None:
    assert results["resumed from"] == 3
    torch.testing.assert_close(results["resumed flows"], results["flows"], rtol=0, atol=0)


def test_two_ranks_resume_on_one(results: Results, directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory / "run", tmp_path / "run")
    of, settings = problem(), Settings(tmp_path / "run", resume=True)
    with pytest.warns(RuntimeWarning, match="written by 2 ranks, this is 1.*not bit for bit"):
        result = fit(of, UPDATE, 8, generator=generator(3), settings=settings)
    assert result.resumed_from == 6
    assert [record["step"] for record in result.history] == list(range(1, 9))
    saved = results["flows"][0]["bijection.layers.0.shift"]
    assert 0 < (of.flow.state_dict()["bijection.layers.0.shift"] - saved).abs().max() < 0.1  # went on from there


def test_one_bad_rank_undoes_the_step_everywhere(results: Results) -> None:
    assert results["rejected"] == [(1, True), (1, True)]


def test_any_objective_and_any_rank_may_stop(results: Results) -> None:
    assert all(isinstance(loss, float) for name in ("forward", "variance") for loss in results[name])
    assert results["stopped"] == [2, 2]


def test_gathering_takes_unequal_parts(results: Results) -> None:
    torch.testing.assert_close(results["gathered"], torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]))
    assert results["from main"] == "rank 0"


def test_seeds_depend_on_everything() -> None:
    seeds = [parallel.derive_seed(*key) for key in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]]
    assert len(set(seeds)) == 4
    assert parallel.derive_seed(1, "a", 0) == seeds[0]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_one_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with parallel.session():
        assert (parallel.rank(), parallel.world_size(), parallel.share(7)) == (0, 1, 7)
        x = torch.ones(2)
        assert parallel.gather(x) is x
        assert parallel.gather_objects("here") == ["here"]


def test_a_batch_that_cannot_be_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "world_size", lambda: 3)
    with pytest.raises(ValueError, match="expected a multiple of 3 ranks, got 16"):
        parallel.share(16)
