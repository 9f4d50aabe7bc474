"""What removing channels gains in time: the network and its cut half, in PyTorch and ONNX Runtime, beside a peer's cut.

    python benchmarks/surgery.py

Every second channel goes in every group that can lose any, by our surgery and by Torch-Pruning; outputs are compared
before times are. "Constants kept" is the default of `prune_channels`, which leaves a channel more in front of
convolutions that pad; "multiple of 8" rounds such odd widths to the nearest; with constants dropped both tools leave
the same shapes. Tracing and cutting includes, of ours alone, the comparison with the masked network.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from _paired import command, paired, row, time_row
from torch import Tensor, nn

from sparsepriors.networks.models import model
from sparsepriors.networks.onnx import OnnxNetwork, write_onnx
from sparsepriors.networks.sparse import ChannelGroup, prune_channels, sparsity_report, trace_groups, zero_channels

WHOLE = "the network before the cut"
PEER = "Torch-Pruning"


class Cut:
    """One network, what goes, and what each tool leaves of it."""

    def __init__(self, name: str, options: dict[str, Any], side: int, batch: int) -> None:
        self.name = name
        generator = torch.Generator().manual_seed(0)
        self.network = model(name, generator=generator, **options).eval()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):   # as a training leaves them: a shift that passes the activation
                nn.init.normal_(module.bias, std=0.3, generator=generator)
        self.x = torch.randn(batch, 3, side, side, generator=generator)
        self.traced = trace_groups(self.network, self.x[:2])
        self.groups = [g for g in self.traced if g.norms and not g.pinned]
        self.masks = {}
        for group in self.groups:
            for norm in group.norms:
                self.masks[norm] = torch.ones(group.size, dtype=torch.bool)
                self.masks[norm][self.doomed(group)] = False

    def doomed(self, group: ChannelGroup) -> list[int]:
        """Every second channel of a group."""
        return list(range(0, group.size - 1, 2))

    def ours(self, shifts: str = "fold", groups: Sequence[ChannelGroup] | None = None, multiple: int = 1) -> nn.Module:
        """Traced, unless the groups are given, and cut by our surgery."""
        return prune_channels(self.network, self.masks, self.x[:2], shifts=shifts, groups=groups,
                              multiple=multiple, rounding="nearest").eval()

    def theirs(self) -> nn.Module:
        """A copy, traced and cut by the peer."""
        cut = copy.deepcopy(self.network)
        graph = tp.DependencyGraph().build_dependency(cut, example_inputs=self.x[:2])
        for group in self.groups:
            conv = cut.get_submodule(next(iter(group.producers)))
            graph.get_pruning_group(conv, tp.prune_conv_out_channels, idxs=self.doomed(group)).prune()
        return cut.eval()

    def masked(self, *, shifts: bool) -> nn.Module:
        """The whole network with scales, and shifts, of what goes at zero."""
        network = copy.deepcopy(self.network)
        zero_channels(network, self.masks, shifts=shifts)
        return network

    def forward(self, network: nn.Module) -> Callable[[], Tensor]:
        """A call on the whole batch."""
        def call() -> Tensor:
            with torch.no_grad():
                return network(self.x)

        return call


def rows_of(cut: Cut, pairs: int, threads: int) -> list[dict[str, Any]]:
    small, dropped, peer = cut.ours("fold", cut.traced), cut.ours("drop", cut.traced), cut.theirs()
    even = cut.ours("fold", cut.traced, multiple=8)   # not quite what the masks keep: the tests say what it computes
    for ours, masked in ((small, cut.masked(shifts=False)), (dropped, cut.masked(shifts=True)), (peer, dropped)):
        torch.testing.assert_close(cut.forward(ours)(), cut.forward(masked)(), rtol=1e-3, atol=1e-3)
    macs = [float(sparsity_report(m, example=cut.x[:1]).macs_dense or 0) for m in (small, cut.network, peer, even)]
    name = cut.name
    rows = [row(f"{name}, constants kept", "multiply-adds", macs[0], WHOLE, macs[1], round(macs[1] / macs[0], 3)),
            row(f"{name}, constants kept", "multiply-adds", macs[0], PEER, macs[2], round(macs[2] / macs[0], 3)),
            row(f"{name}, multiple of 8", "multiply-adds", macs[3], PEER, macs[2], round(macs[2] / macs[3], 3)),
            time_row(f"{name}, constants kept, PyTorch", WHOLE,
                     paired(cut.forward(small), cut.forward(cut.network), pairs=pairs)),
            time_row(f"{name}, constants kept, PyTorch", PEER,
                     paired(cut.forward(small), cut.forward(peer), pairs=pairs)),
            time_row(f"{name}, multiple of 8, PyTorch", PEER,
                     paired(cut.forward(even), cut.forward(peer), pairs=pairs)),
            time_row(f"{name}, constants dropped, PyTorch", PEER,
                     paired(cut.forward(dropped), cut.forward(peer), pairs=pairs))]
    with tempfile.TemporaryDirectory() as folder:
        run = {}
        for key, network in (("whole", cut.network), ("small", small), ("peer", peer)):
            session = OnnxNetwork(write_onnx(Path(folder) / f"{key}.onnx", network, cut.x[:2]), threads=threads)
            torch.testing.assert_close(session(cut.x), cut.forward(network)(), rtol=1e-3, atol=1e-3)
            run[key] = lambda session=session: session(cut.x)
        rows += [time_row(f"{name}, constants kept, ONNX Runtime", WHOLE, paired(run["small"], run["whole"],
                                                                                pairs=pairs)),
                 time_row(f"{name}, constants kept, ONNX Runtime", PEER, paired(run["small"], run["peer"],
                                                                               pairs=pairs))]
    rows.append(time_row(f"{name}, tracing and cutting", PEER, paired(cut.ours, cut.theirs, pairs=min(pairs, 3))))
    return rows


def measure(quick: bool) -> list[dict[str, Any]]:
    cases: list[tuple[str, dict[str, Any], int]] = [("resnet18", {"width": 64, "stem": "cifar"}, 32),
                                                    ("mobilenet-v2", {}, 128)]
    pairs, batch = 9, 16
    if quick:
        cases, pairs, batch = [("resnet18", {"width": 4, "stem": "cifar"}, 8)], 2, 2
    return [r for name, options, side in cases
            for r in rows_of(Cut(name, options, side, batch), pairs, torch.get_num_threads())]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("surgery", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
