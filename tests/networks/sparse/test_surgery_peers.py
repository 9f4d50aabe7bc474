"""Groups and multiply-adds beside Torch-Pruning, which traces dependencies through autograd."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from sparsepriors.networks.models import model
from sparsepriors.networks.sparse import prune_channels, sparsity_report, trace_groups

tp = pytest.importorskip("torch_pruning")


@pytest.mark.parametrize(("name", "options", "side"), [
    ("small-conv", {"width": 8, "in_channels": 3}, 16), ("resnet18", {"width": 8, "stem": "cifar"}, 16),
    ("mobilenet-v2", {"width": 0.5, "stem": "cifar"}, 16)])
def test_the_same_layers_are_tied_and_the_same_multiply_adds_are_left(name: str, options: dict[str, Any],
                                                                      side: int) -> None:
    network = model(name, generator=torch.Generator().manual_seed(0), **options).eval()
    x = torch.randn(2, 3, side, side)
    names = {m: n for n, m in network.named_modules()}
    groups = trace_groups(network, x)
    # Each of our groups is the peer's for the first convolution that makes its channels.
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=x)
    for group in groups:
        if group.norms and not group.pinned:
            conv = network.get_submodule(next(iter(group.producers)))
            theirs = graph.get_pruning_group(conv, tp.prune_conv_out_channels, idxs=[0])
            layers = {names[dep.target.module] for dep, _ in theirs if dep.target.module in names}
            assert layers == set(group.layers)
    # The peer removes the same channels of a copy: what is left computes and costs the same.
    cut, masks = copy.deepcopy(network), {}
    modules = dict(cut.named_modules())
    graph = tp.DependencyGraph().build_dependency(cut, example_inputs=x)
    for group in groups:
        if group.norms and not group.pinned:
            doomed = list(range(0, group.size - 1, 2))
            for norm in group.norms:
                masks[norm] = torch.ones(group.size, dtype=torch.bool)
                masks[norm][doomed] = False
            graph.get_pruning_group(modules[next(iter(group.producers))], tp.prune_conv_out_channels,
                                    idxs=doomed).prune()
    small = prune_channels(network, masks, x, groups=groups)
    with torch.no_grad():
        torch.testing.assert_close(small(x), cut(x), atol=1e-5, rtol=1e-4)
    assert sparsity_report(small, example=x).macs_dense == sparsity_report(cut, example=x).macs_dense
