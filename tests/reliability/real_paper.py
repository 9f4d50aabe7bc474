"""An experiment that reconstructs, trains and measures for a second or two: what a kill can hit."""

import torch
from torch import nn

from sparsepriors.networks.batches import Shuffled
from sparsepriors.networks.train_loop import TrainLoop
from sparsepriors.operators import FourierTransform, Sampling
from sparsepriors.priors import L1, TV
from sparsepriors.runs import Claim, Paper
from sparsepriors.solvers import proximal_gradient

PAPER = Paper("real-paper", "A small experiment that is real", "A. Nobody", 2020, "https://example.org/x", "priors",
              ("Reconstruct from half of the frequencies.", "Train a line.",),
              (Claim("tv", "total variation beats l1", "not reported", "l1", margin=0.0),))


def run(scale, seed, run):
    errors = {}
    for i, prior in enumerate((L1(0.01), TV(0.01))):
        solved = run.tensors(f"solved-{i}", lambda prior=prior: reconstruct(prior, seed))
        errors[type(prior).__name__] = float((solved["x"] - solved["truth"]).abs().mean())
        run.log(prior=type(prior).__name__, error=errors[type(prior).__name__])
    for i in range(8):
        trained = run.tensors(f"trained-{i}",
                              lambda i=i: train(10 * seed + i, run.folder / f"training-{i}.safetensors"))
        run.log(prior="none", error=float(trained["weight"].norm()))
    run.claim("tv", ours=-errors["TV"], baseline=-errors["L1"])


def reconstruct(prior, seed):
    g = torch.Generator().manual_seed(seed)
    truth = torch.zeros(24, 24)
    truth[6:14, 8:20] = 1.0
    A = Sampling(torch.rand(24, 24, generator=g) < 0.5, torch.complex64) @ FourierTransform((24, 24))
    y = A(truth.to(torch.complex64))
    x = proximal_gradient(A, y, L1(0.01) if isinstance(prior, L1) else prior, max_iter=10, tol=1e-6).x
    return {"x": x.abs(), "truth": truth}


def train(seed, checkpoint):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 8, generator=g)
    y = x.sum(1, keepdim=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 1))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / 4)
    loop = TrainLoop(model, torch.optim.Adam(model.parameters(), 1e-2),
                     lambda m, b, g: (m(b[0]) - b[1]).square().mean(), Shuffled(x, y, batch_size=16), steps=20,
                     generator=g, checkpoint=checkpoint, checkpoint_every=6)
    loop.fit(resume=True)
    rng = g.get_state()
    return {"weight": nn.utils.parameters_to_vector(model.parameters()).detach(), "rng": rng,
            "loss": torch.tensor(loop.trace["loss"])}
