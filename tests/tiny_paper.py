"""A paper of twelve small units of work, for tests of the machinery around papers."""

import torch

from sparsepriors.runs import Claim, Paper

PAPER = Paper("tiny-paper", "A tiny experiment", "A. Nobody", 2020, "https://example.org/x", "priors",
              ("Draw numbers.", "Add them up."),
              (Claim("better", "ours is better", "not reported", "a constant", margin=0.1),))


def run(scale, seed, run):
    total = 0.0
    with run.progress(12, "units") as bar:
        for i in range(12):
            value, draws = (torch.Generator().manual_seed(1000 * seed + 10 * i + k) for k in range(2))
            kept = run.once(f"unit-{i}", lambda g=value: {"v": torch.rand((), generator=g)})
            drawn = run.tensors(f"draws-{i}", lambda g=draws: {"x": torch.rand(2000, generator=g)})
            total += kept["v"] + float(drawn["x"].mean())
            run.log(method="even" if i % 2 == 0 else "odd", step=i, total=total)
            bar.advance()
    run.claim("better", ours=total, baseline=1.0)
