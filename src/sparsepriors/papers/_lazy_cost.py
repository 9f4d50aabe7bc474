"""What silent neurons save, in time, and why training silences them: two measurements without a training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sparsepriors.kernels import largest_positive, sum_rows
from sparsepriors.kernels.dispatch import torch_threads
from sparsepriors.networks.activations import TopKActivation
from sparsepriors.networks.models import seeded
from sparsepriors.networks.sparse_mlp import SparseMLP

_COPIES = 4      # perceptrons that take turns, so that matrices come from memory as they do in a model
_ROUNDS = 40


@torch.no_grad()
def decoding(width: int, neurons: int, active: int, seed: int) -> dict[str, float]:
    """One token through perceptrons of which ``active`` neurons are active, dense and sparse, on one thread.

    Returns
    -------
    dict
        ``error``: largest difference of the results; ``second`` and ``whole``: time of the dense one over that of the
        sparse one, for the second matrix alone and for the perceptron; ``second_ms`` and ``dense_ms``.
    """
    with seeded(torch.Generator().manual_seed(seed)):
        dense = [nn.Sequential(nn.Linear(width, neurons), TopKActivation(nn.ReLU(), active), nn.Linear(neurons, width))
                 for _ in range(_COPIES)]
        x = torch.randn(1, width)
    sparse = [SparseMLP.from_dense(mlp) for mlp in dense]
    inner = [mlp[:2](x) for mlp in dense]
    second = [mlp[2] for mlp in dense]

    def dense_second(i: int) -> None:
        functional.linear(inner[i], second[i].get_parameter("weight"), second[i].get_parameter("bias"))

    def sparse_second(i: int) -> None:
        sum_rows(sparse[i].rows, *largest_positive(inner[i], neurons)).add_(sparse[i].get_buffer("bias"))

    calls: dict[str, Callable[[int], object]] = {
        "dense_second": dense_second, "sparse_second": sparse_second, "dense": lambda i: dense[i](x),
        "sparse": lambda i: sparse[i].decode(x)}
    with torch_threads(1):
        seconds = _fastest(calls)
    return {"error": max(float((a(x) - b(x)).abs().max()) for a, b in zip(dense, sparse, strict=True)),
            "second": seconds["dense_second"] / seconds["sparse_second"], "whole": seconds["dense"] / seconds["sparse"],
            "second_ms": 1e3 * seconds["sparse_second"], "dense_ms": 1e3 * seconds["dense_second"]}


def _fastest(calls: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Seconds of each, the median of rounds in which they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            begin = time.perf_counter()
            for i in range(_COPIES):
                call(i)
            taken[name].append((time.perf_counter() - begin) / _COPIES)
    return {name: sorted(each)[len(each) // 2] for name, each in taken.items()}


def push(neurons: int, classes: int, draws: int, seed: int) -> dict[str, Any]:
    """The gradient on active pre-activations of a random last layer, over what a squared loss gives in expectation.

    For ``f = V relu(p)`` with independent weights of mean zero and the loss ``|f - y|^2 / 2`` the expected gradient on
    an active ``p_i`` is ``p_i E|v_i|^2``: positive, so that a step makes the neuron less active. Here the loss is cross
    entropy, for which it is measured.

    Returns
    -------
    dict
        ``squared`` and ``entropy``: the sum of the gradients over draws and active neurons, over that of
        ``p_i E|v_i|^2``.
    """
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(draws, neurons, generator=generator, dtype=torch.float64)
    V = torch.randn(draws, classes, neurons, generator=generator, dtype=torch.float64) / neurons**0.5
    y = functional.one_hot(torch.randint(classes, (draws,), generator=generator), classes).double()
    f = torch.einsum("bcn,bn->bc", V, p.relu())
    unit = p.relu().sum() * classes / neurons
    found = {"squared": f - y, "entropy": f.softmax(1) - y}
    return {name: float((torch.einsum("bcn,bc->bn", V, error) * (p > 0)).sum() / unit) for name, error in found.items()}
