"""Several processes, one fit: what torchrun starts, and nothing to notice where there is only one.

Batches are split over ranks, gradients averaged by DistributedDataParallel, log-weights gathered. Rank 0 alone writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
Evaluation = Callable[..., tuple[Tensor, Tensor]]


def world_size() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


@contextmanager
def session() -> Iterator[None]:
    """Join the processes that torchrun describes in the environment, and leave them at the end.

    Uses nccl between GPUs when every local rank has its own, gloo otherwise. Does nothing for a single process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    nccl = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if nccl:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")
    try:
        yield
        distributed.barrier()
    finally:
        _replicated.cache_clear()
        distributed.destroy_process_group()


def derive_seed(seed: int, purpose: str, rank: int) -> int:
    """An independent seed for each (seed, purpose, rank), by hashing: neighbouring ranks share no random numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rank_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of this rank for a purpose ("training", "sampling", …)."""
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, rank()))


def share(n: int) -> int:
    """This rank's part of n samples, the same on every rank."""
    if n % world_size():
        raise ValueError(f"expected a multiple of {world_size()} ranks, got {n} samples: round it up")
    return n // world_size()


def gather(x: Tensor) -> Tensor:  # (n, ...) -> (sum of n over ranks, ...)
    """Everybody's rows in the order of the ranks, on every rank."""
    return torch.cat([part.to(x.device) for part in gather_objects(x.detach().cpu())]) if world_size() > 1 else x


def gather_objects(value: T) -> list[T]:
    """Everybody's value in the order of the ranks, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def from_main(make: Callable[[], T]) -> T:
    """What rank 0 makes, on every rank; the others do not call `make`."""
    values = [make() if rank() == 0 else None]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def synchronise(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if world_size() > 1:
        module.load_state_dict(from_main(lambda: {k: v.cpu() for k, v in module.state_dict().items()}))


def evaluate(objective: Evaluation, problem: Any, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """objective(problem, n, generator), such that `backward` of its value averages the gradients over all ranks."""
    if world_size() == 1:
        return objective(problem, n, generator)
    return _replicated(problem.flow)(objective, problem, n, generator)


class _Replica(nn.Module):
    """Makes an objective the forward pass of a module that owns the flow's parameters: what the hooks need to see.

    Every parameter enters the value, with weight zero, so that all ranks reduce the same gradients in any case.
    Buffers are constants of the flow and are left out.
    """

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.trained = nn.ParameterList([p for p in flow.parameters() if p.requires_grad])

    def forward(self, objective: Evaluation, *arguments: Any) -> tuple[Tensor, Tensor]:
        value, log_weights = objective(*arguments)
        return value + 0 * torch.stack([p.real.sum() for p in self.trained]).sum(), log_weights


@lru_cache(maxsize=1)
def _replicated(flow: nn.Module) -> nn.Module:
    """One wrapper per flow, since its construction talks to all ranks."""
    return nn.parallel.DistributedDataParallel(_Replica(flow))
