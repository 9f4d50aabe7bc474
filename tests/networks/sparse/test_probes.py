import json

import pytest
import torch
from torch import nn

from sparsepriors.networks import Recipe, TrainLoop, model, train_classifier
from sparsepriors.networks.batches import Shuffled
from sparsepriors.networks.classification import cross_entropy
from sparsepriors.networks.sparse import preset, select
from sparsepriors.networks.sparse.probes import GradientNoise, SADTracker
from sparsepriors.networks.train_loop import Hook
from sparsepriors.priors import NM


def data(generator, n=64):
    return torch.randn(n, 1, 4, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def small(generator):
    net = model("mlp", generator=generator, size=4, hidden=(8,), classes=3)
    return net, {n: s.parameter for n, s in select(net).items()}


class Copies(Hook):
    """The weights and gradients of every step."""

    def __init__(self, weights):
        self.of, self.weights, self.grads = weights, [], []

    def on_start(self, loop):
        self.weights.append({n: w.detach().clone() for n, w in self.of.items()})

    def after_backward(self, loop):
        self.grads.append({n: w.grad.clone() for n, w in self.of.items()})

    def after_step(self, loop):
        self.on_start(loop)


def test_divergence_counts_what_moved_and_how_far_masks_are_from_the_first(generator):
    net, weights = small(generator)
    copies, pattern = Copies(weights), NM(1, 4)
    tracker = SADTracker(weights, pattern, every=3)
    train_classifier(net, data(generator), Recipe(epochs=5, batch=16, rate=0.5), generator=generator,
                     hooks=(copies, tracker))
    masks = [{n: pattern.mask(w.abs()) for n, w in at.items()} for at in copies.weights]
    entries = sum(w.numel() for w in weights.values())

    def differ(a, b):
        return sum(int((masks[a][n] ^ masks[b][n]).sum()) for n in weights) / entries

    assert tracker.steps == [3, 6, 9, 12, 15, 18]
    assert tracker.moved == [differ(t - 3, t) for t in tracker.steps]
    assert tracker.away == [differ(0, t) for t in tracker.steps]
    assert tracker.total == pytest.approx(sum(tracker.moved))
    assert tracker.total > 0.05


def test_divergence_of_every_step_is_the_churn_of_the_sparsifier(generator):
    net, weights = small(generator)
    tracker = SADTracker(weights, NM(2, 4), every=1)
    done = train_classifier(net, data(generator), Recipe(epochs=5, batch=16, rate=0.5), generator=generator,
                            plan=preset("sr-ste"), hooks=(tracker,))
    assert done.report is not None
    assert tracker.total == pytest.approx(done.report.churn)


def test_noise_is_the_variance_of_each_entry_over_a_window(generator):
    net, weights = small(generator)
    copies, noise = Copies(weights), GradientNoise(weights, window=4)
    moments = []

    class Moments(Hook):
        def after_step(self, loop):
            moments.append({n: float(loop.optimizer.state[w]["exp_avg_sq"].mean()) for n, w in weights.items()})

    train_classifier(net, data(generator), Recipe(epochs=5, batch=16, optimizer="adamw", rate=0.01),
                     generator=generator, hooks=(copies, noise, Moments()))
    assert noise.steps == [4, 8, 12, 16, 20]
    for name in weights:
        for k, end in enumerate(noise.steps):
            window = torch.stack([copies.grads[t][name].double() for t in range(end - 4, end)])
            assert noise.variance[name][k] == pytest.approx(float(window.var(dim=0).mean()), rel=1e-4)
            assert noise.second_moment[name][k] == pytest.approx(
                sum(moments[t][name] for t in range(end - 4, end)) / 4, rel=1e-6)


def test_an_optimizer_without_moments_leaves_them_empty(generator):
    net, weights = small(generator)
    noise = GradientNoise(weights, window=2)
    train_classifier(net, data(generator), Recipe(epochs=1, batch=16), generator=generator, hooks=(noise,))
    assert noise.second_moment == {}
    assert len(noise.variance["layers.0.weight"]) == 2


def test_probes_change_nothing_and_resume_to_the_same_numbers(generator, tmp_path):
    x, y = data(generator)

    def training(stop_at=None, resume=False, probes=True, file="whole"):
        g = torch.Generator().manual_seed(1)
        net, weights = small(g)
        hooks = [SADTracker(weights, NM(2, 4), every=2), GradientNoise(weights, window=5)] if probes else []
        loop = TrainLoop(net, torch.optim.AdamW(net.parameters(), 0.05), cross_entropy, Shuffled(x, y, batch_size=16),
                         steps=17, generator=g, hooks=hooks, checkpoint=tmp_path / file)
        loop.fit(resume=resume, callback=lambda s: s.step == stop_at)
        return [p.detach() for p in net.parameters()], [json.dumps(plain(h)) for h in hooks]

    def plain(hook):
        names = ("steps", "moved", "away") if isinstance(hook, SADTracker) else ("steps", "variance", "second_moment")
        return {n: getattr(hook, n) for n in names}

    whole = training()
    training(stop_at=8, file="part")
    again = training(resume=True, file="part")
    assert again[1] == whole[1]
    for a, b, c in zip(whole[0], again[0], training(probes=False, file="bare")[0], strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.public_door
def test_a_probe_of_nothing_or_of_another_model_is_refused(generator):
    with pytest.raises(ValueError, match="at least one weight, got none"):
        GradientNoise({})
    with pytest.raises(ValueError, match="at least one weight, got none"):
        SADTracker({}, NM(2, 4))
    with pytest.raises(ValueError, match="window must be"):
        GradientNoise({"w": torch.zeros(2)}, window=1)
    net, _ = small(generator)
    other = nn.Linear(4, 4).weight
    with pytest.raises(RuntimeError, match="no backward pass reached w"):
        train_classifier(net, data(generator), Recipe(epochs=1, batch=16), generator=generator,
                         hooks=(GradientNoise({"w": other}),))
