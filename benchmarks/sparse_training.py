"""What sparse training costs on top of a dense step: ResNet-18, batch 64 of 32 x 32, against the step without masks.

    python benchmarks/sparse_training.py

Two equal networks take turns, one with a sparsifier and one without, or with masks of PyTorch's own tools. The kernels
are dense in all of them: a ratio of 1 means that masks cost nothing, not that sparsity gains time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _paired import Paired, command, paired, row, time_row
from torch import Tensor, nn
from torch.ao.pruning.sparsifier.weight_norm_sparsifier import WeightNormSparsifier
from torch.nn.utils import prune

from sparsepriors.networks.models import MLP, ResNet
from sparsepriors.networks.sparse import Selector, SparsePlan, Sparsifier, preset, select

DENSE_STEP = "the step without masks"
LONG = 10**4   # steps: no schedule ends within the measurement
STATIC, EVERY_STEP = 1 / 1.05, 1 / 1.15
WHERE = Selector(skip=("conv1",))   # 27 weights a filter are no multiple of 4


class Training:
    """A network, its optimizer and one batch: ResNet-18 or, because some tools know no convolutions, linear layers."""

    def __init__(self, width: int, batch: int, *, linear: bool = False) -> None:
        torch.manual_seed(0)
        self.model = (MLP(hidden=(width, width), size=32, in_channels=3) if linear else
                      ResNet((2, 2, 2, 2), width=width, in_channels=3, classes=10, stem="cifar"))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        self.x, self.y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))

    def step(self) -> None:
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.x), self.y).backward()
        self.optimizer.step()

    def sparse(self, plan: SparsePlan) -> Sparsifier:
        return Sparsifier(self.model, plan, self.optimizer, total_steps=LONG,
                          generator=torch.Generator().manual_seed(0))


def plan_of(name: str, **options: Any) -> SparsePlan:
    return preset(name, where=WHERE, **options)


def torch_prune(training: Training) -> Callable[[], None]:
    """Masks of ``torch.nn.utils.prune``, one tenth of the weights kept."""
    layers = [training.model.get_submodule(s.layer) for s in select(training.model, WHERE).values()]
    for layer in layers:
        prune.random_unstructured(layer, "weight", amount=0.9)
    return training.step   # the optimizer holds the same parameters, which only have another name now


def torch_ao(training: Training) -> Callable[[], None]:
    """2:4 masks of ``torch.ao.pruning``, which takes linear layers only, drawn anew after every step."""
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(training.model, [{"tensor_fqn": n} for n in select(training.model)])

    def step() -> None:
        training.step()
        sparsifier.step()

    return step


def extra_bytes(model: nn.Module, sparsifier: Sparsifier | None) -> float:
    """Bytes for each selected weight that a dense network would not have."""
    held: dict[int, Tensor] = {b.data_ptr(): b for n, b in model.named_buffers() if "mask" in n}
    if sparsifier is not None:
        for group in (sparsifier.masks, sparsifier.fired, sparsifier.always, sparsifier._momenta):
            held |= {m.data_ptr(): m for m in group.values()}
        weights = sum(m.numel() for m in sparsifier.masks.values())
    else:
        products = [m.weight for m in model.modules() if hasattr(m, "weight_orig")]
        held |= {w.data_ptr(): w for w in products if isinstance(w, Tensor)}
        weights = sum(w.numel() for w in products if isinstance(w, Tensor))
    return sum(t.numel() * t.element_size() for t in held.values()) / weights


def moving(width: int, batch: int, every: int, base: Paired, pairs: int) -> list[dict[str, Any]]:
    """RigL: a step that moves masks, and what that is for each step of a period."""
    training, dense = Training(width, batch), Training(width, batch)
    training.sparse(plan_of("rigl", density=0.1, every=1))
    found = paired(training.step, dense.step, pairs=pairs)
    share = 1 / found.ratio / every + (1 - 1 / every) / base.ratio
    return [time_row("rigl, a step that moves masks and weights wait", DENSE_STEP, found),
            row(f"rigl, mean of {every} steps", "of a dense step", round(share, 4), DENSE_STEP, 1.0,
                round(1 / share, 4), STATIC)]


def measure(quick: bool) -> list[dict[str, Any]]:
    width, batch, pairs = (8, 2, 2) if quick else (64, 64, 7)
    rows: list[dict[str, Any]] = []
    static, ours = None, 0.0
    for case, plan, target in (
            ("random, static masks", plan_of("random", density=0.1), STATIC),
            ("gmp, a step between prunings", plan_of("gmp", density=0.1, every=100, start=0.5), STATIC),
            ("ste, 2:4 after every step", plan_of("ste"), EVERY_STEP),
            ("sr-ste, 2:4 after every step", plan_of("sr-ste"), EVERY_STEP),
            ("mdgf-linear, 2:4, soft masks", plan_of("mdgf-linear", dense=0.0), EVERY_STEP)):
        training, dense = Training(width, batch), Training(width, batch)
        sparsifier = training.sparse(plan)
        found = paired(training.step, dense.step, pairs=pairs, budget=60.0)
        rows.append(time_row(case, DENSE_STEP, found, target=target))
        if static is None:
            static = found
            assert all(int((sparsifier._parameters[n][~m] != 0).sum()) == 0 for n, m in sparsifier.masks.items())
            ours = extra_bytes(training.model, sparsifier)
    assert static is not None
    rows += moving(width, batch, 100, static, pairs)
    training, other = Training(width, batch), Training(width, batch)
    training.sparse(plan_of("random", density=0.1))
    found = paired(training.step, torch_prune(other), pairs=pairs, budget=60.0)
    rows.append(time_row("random, static masks", "torch.nn.utils.prune", found))
    theirs = extra_bytes(other.model, None)
    rows.append(row("masks and their history", "bytes/weight", round(ours, 3), "torch.nn.utils.prune",
                    round(theirs, 3), round(theirs / ours, 3)))
    training, other = Training(8 * width, batch, linear=True), Training(8 * width, batch, linear=True)
    training.sparse(preset("ste"))
    found = paired(training.step, torch_ao(other), pairs=pairs, budget=60.0)
    rows.append(time_row("ste, 2:4 after every step, linear layers", "torch.ao.pruning", found))
    return rows


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("sparse_training", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
