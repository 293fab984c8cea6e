"""Coarsenings keep the laws, agree with Blocking, stack to pyramids, and serve normflows' MultiscaleFlow."""

from __future__ import annotations

from collections.abc import Callable

import normflows
import pytest
import torch
from normflows.distributions import DiagGaussian
from torch import Tensor

from flows.bases import GaussianField, White
from flows.distribution import Transformed
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.layers.fourier import FourierScaling
from flows.layers.pointwise import Pointwise
from lattices.blocking import Blocking, BlockPointGroup
from lattices.fields import Circle, FieldSpace, Real
from lattices.invariance import SignFlip, Translations
from lattices.lattice import Lattice
from mlrg.coarsening import Coarsening, Mapped, OrthogonalSplit, Pyramid, cosine_basis
from mlrg.hierarchy import Details, HierarchicalFlow
from tests.discovery import examples
from tests.laws import coarsening as laws
from tests.laws.bijections import perturbed

SQUARE = FieldSpace(Lattice((4, 4)))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Altered(Coarsening):
    """Haar's split with something wrong with it."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.sound, self.fault = OrthogonalSplit(SQUARE), fault
        self.field, self.blocking, self.symmetries = SQUARE, Blocking(), self.sound.symmetries

    def split(self, x: Tensor, context: Tensor | None = None) -> tuple[tuple[Tensor, Tensor], Tensor]:
        if self.fault == "swapped":
            x = x.transpose(1, 2).roll(1, 1)
        (c, d), log_det = self.sound.split(x)
        if self.fault == "summed":
            return (c, d), log_det.sum()  # type: ignore[return-value]
        if self.fault == "stretched":
            return (2 * c, d), log_det
        return (c + 1e-6 * (self.fault == "shifted"), d), log_det

    def merge(self, block: Tensor, details: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.sound.merge(block / 2 if self.fault == "stretched" else block, details)


@pytest.mark.parametrize("coarsening", examples(Coarsening))
@pytest.mark.parametrize("law", laws.COARSENING_LAWS, ids=lambda law: law.__name__)
def test_law(law: laws.Law, coarsening: Coarsening) -> None:
    law(coarsening, seeded())


@pytest.mark.parametrize(
    ("law", "fault"),
    [
        (laws.well_formed, "summed"),
        (laws.merge_inverts_split, "shifted"),
        (laws.log_det_is_jacobian, "stretched"),
        (laws.commutes_with_coarse_symmetries, "swapped"),
        (laws.commutes_with_coarse_symmetries, "shifted"),
    ],
)
def test_law_rejects(law: laws.Law, fault: str) -> None:
    law(Altered(), seeded())
    with pytest.raises(AssertionError):
        law(Altered(fault), seeded())


@pytest.mark.parametrize("split", list(OrthogonalSplit.examples()), ids=repr)
def test_block_field_is_that_of_blocking_and_details_are_the_rest(split: OrthogonalSplit) -> None:
    x, d = split.field.random(3, seeded()), split.field.lattice.dimension
    (block, details), _ = split.split(x)
    torch.testing.assert_close(block, split.blocking.down(x, d))
    torch.testing.assert_close(split.merge(block, 0 * details)[0], split.blocking.up(block, d))
    torch.testing.assert_close(split.merge(0 * block, details)[0], split.blocking.details(x, d))
    torch.testing.assert_close(split.basis @ split.basis.mT, torch.eye(len(split.basis), dtype=torch.float64))
    assert x.square().sum().item() == pytest.approx((block.square().sum() + details.square().sum()).item())


def test_haar_is_written_out() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]], dtype=torch.float64)
    (block, details), _ = OrthogonalSplit(FieldSpace(Lattice((2, 2)))).split(x)
    assert block.flatten().tolist() == pytest.approx([5.5])
    assert details.flatten().tolist() == pytest.approx([-1.5, -2.5, 0.5])  # along the last axis, the first, both
    nodes = torch.signbit(cosine_basis(5)).long().diff(dim=1).abs().sum(1)
    assert nodes.tolist() == [0, 1, 2, 3, 4]


def test_a_mapped_split_has_a_nonlinear_block_field_and_keeps_what_both_keep() -> None:
    mapped = perturbed(next(Mapped.examples()), seeded(), 0.5)
    x = mapped.field.random(3, seeded())
    (once, _), log_det = mapped.split(x)
    (twice, _), _ = mapped.split(2 * x)
    assert (twice - 2 * once).abs().max() > 1e-2
    assert log_det.abs().min() > 1e-2
    assert mapped.symmetries == (Translations(2), BlockPointGroup(2), SignFlip())


@pytest.mark.parametrize("blocking", list(Blocking.examples()), ids=str)
def test_pyramids_split_to_any_level(blocking: Blocking) -> None:
    field = FieldSpace(Lattice((blocking.size**2, 2 * blocking.size**2)), Real(2))
    pyramid, x = Pyramid.orthogonal(field, 2, blocking), field.random(3, seeded())
    parts, log_det = pyramid.split(x)
    torch.testing.assert_close(parts[0], blocking.down(blocking.down(x, 2), 2))
    assert sum(part[0].numel() for part in parts) == x[0].numel()
    assert [tuple(part.shape[1:]) for part in parts[1:]] == [merge.detail_shape for merge in pyramid.merges]
    torch.testing.assert_close(pyramid.merge(parts)[0], x)
    assert not log_det.any()
    (level, details), _ = pyramid.merges[-1].split(x)
    assert torch.equal(details, parts[-1])
    torch.testing.assert_close(pyramid.merges[0].merge(*parts[:2])[0], level)


def test_log_dets_of_a_pyramid_add_up() -> None:
    fine = Mapped(Pointwise(SQUARE), OrthogonalSplit(SQUARE))
    coarse = Mapped(Pointwise(fine.coarse), OrthogonalSplit(fine.coarse))
    pyramid, x = perturbed(Pyramid(fine, coarse), seeded(), 0.5), SQUARE.random(3, seeded())
    parts, log_det = pyramid.split(x)

    def flat(y: Tensor) -> Tensor:
        return torch.cat([part.flatten(1) for part in pyramid.split(y.reshape(x.shape))[0]], 1)

    torch.testing.assert_close(laws.jacobian(flat, x.flatten(1)).slogdet().logabsdet, log_det)
    back, back_log_det = pyramid.merge(parts)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_log_det, -log_det)


# ------------------------------------------------------------------------------------------------------- normflows


def white(field: FieldSpace) -> GaussianField:
    return GaussianField(field, torch.ones(field.lattice.extents))


def multiscale(flows: list[ContinuousFlow], splits: Pyramid) -> normflows.MultiscaleFlow:
    bases = [White(flows[0].domain), *(DiagGaussian(m.detail_shape, trainable=False).double() for m in splits.merges)]
    return normflows.MultiscaleFlow(bases, [[flow] for flow in flows], splits.merges, class_cond=False)


@pytest.mark.parametrize("kind", ["average", "decimation"])
def test_normflows_multiscale_flow_of_our_parts_is_our_hierarchy(kind: str) -> None:
    """With white bases the details are independent of the block field, and the two densities are one."""
    blocking, splits = Blocking(kind), Pyramid.orthogonal(SQUARE, 2, Blocking(kind))
    fields = [FieldSpace(Lattice((n, n))) for n in (1, 2, 4)]
    spec = VectorFieldSpec((0.7,), radius=1.5, n_times=2)
    kept = VectorFieldSpec((0.7,), radius=1.5, n_times=2, blocking=kind)
    flows = [perturbed(ContinuousFlow(f, kept if f != fields[0] else spec, 3, "dop853"), seeded()) for f in fields]
    levels = tuple(Details(white(flow.domain), flow, blocking) for flow in flows[1:])
    ours, theirs = HierarchicalFlow(Transformed(white(fields[0]), flows[0]), levels), multiscale(flows, splits)
    x = SQUARE.random(5, seeded())
    torch.testing.assert_close(theirs.log_prob(x, None), ours.log_prob(x), rtol=1e-12, atol=1e-12)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(4)
        sample, log_prob = theirs.sample(6)
    torch.testing.assert_close(theirs.log_prob(sample, None), log_prob, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.log_prob(sample), log_prob, rtol=1e-8, atol=1e-8)
    latent, log_det = theirs.inverse_and_log_det(x)
    torch.testing.assert_close(theirs.forward_and_log_det(latent)[0], x, rtol=1e-8, atol=1e-8)
    assert log_det.dtype == torch.float64


def test_normflows_trains_a_mapped_split() -> None:
    """A learned map before the split gets a gradient from normflows' maximum likelihood, equal to the exact one."""
    field = FieldSpace(Lattice((4, 2)))
    mapped = perturbed(Mapped(Pointwise(field), OrthogonalSplit(field)), seeded())
    bases = [White(mapped.coarse), DiagGaussian(mapped.detail_shape, trainable=False).double()]
    model = normflows.MultiscaleFlow(bases, [[FourierScaling(mapped.coarse)], []], [mapped], class_cond=False)
    x = field.random(20, seeded())
    parameters = list(mapped.parameters())
    gradient = torch.autograd.grad(model.forward_kld(x), parameters)
    exact = torch.autograd.grad(-Transformed(White(field), mapped.bijection).log_prob(x).mean(), parameters)
    torch.testing.assert_close(gradient, exact)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: OrthogonalSplit(FieldSpace(Lattice((4, 4)), Circle())), TypeError, "real fields on sites"),
        (lambda: OrthogonalSplit(FieldSpace(Lattice((3, 4)))), ValueError, "divisible by 2"),
        (lambda: Mapped(Pointwise(SQUARE), OrthogonalSplit(FieldSpace(Lattice((2, 2))))), ValueError, "one lattice"),
        (lambda: Pyramid(), ValueError, "at least one"),
        (lambda: Pyramid(OrthogonalSplit(SQUARE), OrthogonalSplit(SQUARE)), ValueError, "fine → coarse"),
        (lambda: Pyramid.orthogonal(SQUARE, 3), ValueError, "divisible by 8"),
        (lambda: Pyramid.orthogonal(SQUARE, 1).merge([torch.zeros(1, 2, 2)]), ValueError, r"expected 1 \+ 1 parts"),
        (lambda: Pointwise(FieldSpace(Lattice((4, 4)), Real(2))), TypeError, "real scalar field"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
