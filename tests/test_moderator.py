"""Moderators start as the identity, have exact Jacobians, and the gradient flow has a monotone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlrg.moderator import GradientFlow, SmoothMap

KINDS = (GradientFlow, SmoothMap)


def moderator(kind: type, awake: bool = True) -> GradientFlow | SmoothMap:
    generator = torch.Generator().manual_seed(1)
    centre = torch.tensor([1.0, -0.5], dtype=torch.float64)
    made = kind(2, centre, torch.tensor([0.5, 2.0], dtype=torch.float64), (8, 8), generator)
    if awake:
        with torch.no_grad():
            made.network[-1].weight.normal_(0, 0.3, generator=generator)
    return made


def couplings(n: int = 5) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_identity_at_the_start(kind: type) -> None:
    made, J = moderator(kind, awake=False), couplings()
    torch.testing.assert_close(made(J), J)
    torch.testing.assert_close(made.jacobian(J), torch.eye(2, dtype=J.dtype).expand(5, 2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_by_finite_differences(kind: type) -> None:
    made, J, h = moderator(kind), couplings(), 1e-5
    steps = h * torch.eye(2, dtype=J.dtype)
    columns = [(made(J + e) - made(J - e)) / (2 * h) for e in steps]
    torch.testing.assert_close(made.jacobian(J), torch.stack(columns, -1), rtol=1e-7, atol=1e-8)


def test_gradient_flow_follows_its_monotone_and_a_smooth_map_has_none() -> None:
    J, h = couplings(), 1e-5
    flow = moderator(GradientFlow)
    slope = [(flow.monotone(J + e) - flow.monotone(J - e)) / (2 * h) for e in h * torch.eye(2, dtype=J.dtype)]
    torch.testing.assert_close(flow(J), J - torch.stack(slope, -1), rtol=1e-7, atol=1e-8)
    asymmetry = [(made.jacobian(J) - made.jacobian(J).mT).abs().max() for made in (flow, moderator(SmoothMap))]
    assert asymmetry[0] < 1e-12
    assert asymmetry[1] > 1e-2  # the negative control


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_nothing_is_recorded_without_need(kind: type) -> None:
    made, J = moderator(kind), couplings()
    made(J).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in made.named_parameters() if n != "network.4.bias"
    )
    with torch.no_grad():
        assert not made(J).requires_grad
    assert made(J.float().double()).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_bad_regions_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="centre"):
        kind(3, torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match="positive"):
        kind(2, torch.zeros(2), torch.tensor([1.0, 0.0]))
