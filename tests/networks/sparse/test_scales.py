"""A prior on the scales: it moves what it should, as far as it should, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsepriors.networks.batches import Shuffled
from sparsepriors.networks.classification import cross_entropy
from sparsepriors.networks.models import MLP
from sparsepriors.networks.sparse import ScalePrior, scales, threshold_ot
from sparsepriors.networks.train_loop import TrainLoop
from sparsepriors.priors import L1, MCP, SquaredL2
from sparsepriors.priors.base import Prior


def trained(prior: Prior | None, masks: Any = None, *, steps: int = 40, momentum: float = 0.9,
            **options: Any) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = MLP(hidden=(12, 8), size=4, classes=3, norm=True)
    x, y = torch.randn(64, 1, 4, 4, generator=generator), torch.randint(3, (64,), generator=generator)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=momentum)
    hooks = [] if prior is None else [ScalePrior(network, prior, masks, **options)]
    TrainLoop(network, optimizer, cross_entropy, Shuffled(x, y, batch_size=16), steps=steps, generator=generator,
              hooks=hooks).fit()
    return network


HALF = {"norms.0": torch.tensor([1, 0] * 6).bool(), "norms.1": torch.tensor([1, 1, 0, 0] * 2).bool()}


@pytest.mark.parametrize("prior", [L1(0.03), SquaredL2(0.5), MCP(0.03, gamma=3.0)], ids=lambda p: type(p).__name__)
def test_one_subgradient_step_is_the_papers_update(prior: Prior) -> None:
    """After one step of plain descent the scales differ by the rate times the derivative, on the masked ones alone."""
    start = trained(None, steps=1, momentum=0.0)
    network = trained(prior, HALF, steps=1, momentum=0.0)
    slope = {"L1": lambda s: 0.03 * s.sign(), "SquaredL2": lambda s: 0.5 * s,
             "MCP": lambda s: (0.03 - s.abs() / 3).clamp(min=0) * s.sign()}[type(prior).__name__]
    for name, mask in HALF.items():
        expected = torch.where(mask, 0, 0.05 * slope(torch.ones(len(mask))))   # scales begin at 1
        torch.testing.assert_close(scales(start)[name] - scales(network)[name], expected, atol=1e-7, rtol=1e-5)
    for name, value in start.state_dict().items():
        if name not in ("norms.0.weight", "norms.1.weight"):
            assert torch.equal(value, network.state_dict()[name])


def test_a_scale_of_zero_is_not_pushed() -> None:
    network = MLP(hidden=(3,), size=2, norm=True)
    hook = ScalePrior(network, L1(0.5))
    scale = scales(network)["norms.0"]
    with torch.no_grad():
        scale.copy_(torch.tensor([0.0, 2.0, -2.0]))
    scale.grad = torch.zeros(3)
    rows = Shuffled(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64), batch_size=4)
    hook.after_backward(TrainLoop(network, torch.optim.SGD(network.parameters()), cross_entropy, rows, steps=1,
                                  generator=torch.Generator()))
    assert scale.grad.tolist() == [0.0, 0.5, -0.5]
    assert hook.value() == 2.0


def test_the_prox_makes_exact_zeros_and_spares_the_kept() -> None:
    network = trained(L1(2.0), HALF, via="prox")
    for name, mask in HALF.items():
        assert not scales(network)[name][~mask].any()
        assert (scales(network)[name][mask] > 0.5).all()
    one = trained(L1(0.8), HALF, via="prox", steps=1, momentum=0.0)
    plain = trained(None, steps=1, momentum=0.0)
    for name, mask in HALF.items():
        before = scales(plain)[name].detach()
        expected = torch.where(mask, before, L1(0.8).prox(before, 0.05))
        torch.testing.assert_close(scales(one)[name].detach(), expected, atol=1e-7, rtol=0)


def test_without_masks_every_scale_is_meant() -> None:
    everywhere, masked = trained(L1(0.05)), trained(L1(0.05), HALF)
    for name, mask in HALF.items():
        wide, narrow = (scales(n)[name].detach().abs() for n in (everywhere, masked))
        assert float(wide[mask].mean()) < 0.5 < float(narrow[mask].mean())
        assert float(narrow[~mask].mean()) < 0.5


@given(st.lists(st.floats(0, 4), min_size=1, max_size=30), st.floats(1e-4, 0.5))
def test_what_is_below_the_threshold_has_at_most_the_share(values: list[float], share: float) -> None:
    scores = torch.tensor(values)
    threshold = threshold_ot(scores, share)
    if float(scores.max()) < 1e-3:
        assert threshold == 1
        return
    energy = scores.double().square()
    assert float(energy[scores < threshold].sum()) <= share * float(energy.sum()) * (1 + 1e-9)
    assert (scores >= threshold).any()


def test_the_threshold_lies_between_the_peaks() -> None:
    assert threshold_ot(torch.tensor([0.001, 1.0, -0.002, 0.9])) == pytest.approx((0.002 + 0.9) / 2)
    assert threshold_ot(torch.tensor([3.0, -1.0, 2.0]), 0.1) == 1.5   # 1/14 and 5/14 of the sum of squares
    assert threshold_ot(torch.tensor([0.8, 1.0])) == 0
    assert threshold_ot(torch.tensor([1e-4, 9e-4])) == 1


@pytest.mark.public_door
@pytest.mark.parametrize(("masks", "options", "error", "message"), [
    ({"norms.0": torch.ones(3).bool()}, {}, ValueError, r"norms\.0 must have one entry for each of 12.*\(3,\)"),
    ({"norms.0": torch.ones(12)}, {}, TypeError, "boolean"),
    ({"layers.0": torch.ones(12).bool()}, {}, ValueError, "the model has norms.0, norms.1"),
    ({"norms.0": torch.ones(12).bool()}, {}, ValueError, "nothing to act on"),
    (None, {"via": "proxy"}, ValueError, "did you mean 'prox'"),
    (None, {"prior": 5e-4}, TypeError, "prior must be a Prior"),
])
def test_bad_arguments_are_refused(masks: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    network = MLP(hidden=(12, 8), size=4, norm=True)
    with pytest.raises(error, match=message):
        ScalePrior(network, options.pop("prior", L1(0.1)), masks, **options)


@pytest.mark.public_door
def test_networks_and_scores_are_checked() -> None:
    with pytest.raises(ValueError, match="no batch normalisation with scales"):
        scales(MLP())
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        scales(3)
    bad: list[tuple[Tensor, float, str]] = [(torch.ones(2, 2), 0.1, "one axis"), (torch.ones(0), 0.1, "at least one"),
                                            (torch.tensor([float("nan")]), 0.1, "NaN"), (torch.ones(2), 1.0, "below 1"),
                                            (torch.ones(2), 0.0, "positive")]
    for scores, share, message in bad:
        with pytest.raises(ValueError, match=message):
            threshold_ot(scores, share)


def test_the_prox_needs_one_rate_for_all_scales() -> None:
    network = MLP(hidden=(12, 8), size=4, classes=3, norm=True)
    some = [p for n, p in network.named_parameters() if n != "norms.1.weight"]
    loop = TrainLoop(network, torch.optim.SGD(some, 0.1), cross_entropy,
                     Shuffled(torch.randn(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64), batch_size=4), steps=1,
                     generator=torch.Generator(), hooks=[ScalePrior(network, L1(0.1), via="prox")])
    with pytest.raises(ValueError, match="one learning rate"):
        loop.fit()
