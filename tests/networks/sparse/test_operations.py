"""What a network calls, written down in one run: nothing is changed and nothing is missed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.networks.models import model
from sparsepriors.networks.sparse.operations import record_operations


def names(graph: torch.fx.Graph) -> list[str]:
    return [n.target.overloadpacket.__name__ for n in graph.nodes if isinstance(n.target, torch._ops.OpOverload)]


def test_operators_are_written_down_as_the_code_calls_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(),
                            nn.Linear(36, 2))
    done = record_operations(network.eval(), (torch.randn(2, 3, 5, 5),))
    assert names(done.graph) == ["conv2d", "batch_norm", "relu_", "flatten", "linear"]
    conv, norm, relu, flat, line = (n for n in done.graph.nodes if n.op == "call_function")
    assert (norm.args[0], relu.args[0], flat.args[0], line.args[0]) == (conv, norm, relu, flat)
    assert [n.meta["shape"] for n in (conv, flat, line)] == [(2, 4, 3, 3), (2, 36), (2, 2)]
    assert conv.args[0].name in done.inputs
    assert [done.stored[a.name] for a in (conv.args[1], norm.args[3], line.args[2])] == [
        "0.weight", "1.running_mean", "4.bias"]
    assert next(iter(reversed(done.graph.nodes))).args == ((line,),)


def test_the_graph_is_that_of_the_exported_network() -> None:
    """Inputs of every operator and shapes of every result, for all that `torch.export` keeps."""
    network = model("mobilenet-v2", generator=torch.Generator(), width=0.25, stem="cifar").eval()
    x = torch.randn(2, 3, 20, 20)
    done = record_operations(network, (x,))
    program = torch.export.export(network, (x,), strict=False)
    signature = program.graph_signature
    theirs = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    calls = [[n for n in g.nodes if n.op == "call_function"] for g in (done.graph, program.graph)]
    assert names(done.graph) == names(program.graph)
    order = [{n: i for i, n in enumerate(c)} for c in calls]
    for ours, other in zip(*calls, strict=True):
        assert ours.meta["shape"] == tuple(other.meta["val"].shape)
        assert [order[0].get(a, done.stored.get(a.name, "x")) for a in ours.all_input_nodes] == [
            order[1].get(a, theirs.get(a.name, "x")) for a in other.all_input_nodes]


def test_results_of_several_parts_and_tensors_from_nowhere_have_nodes() -> None:
    class Parts(nn.Module):
        def forward(self, x: Tensor, extra: dict[str, Tensor]) -> list[Tensor]:
            a, b = x.chunk(2, dim=1)
            return [a * extra["gate"], torch.ones(2) + b]

    done = record_operations(Parts(), (torch.randn(3, 4), {"gate": torch.rand(3, 2)}))
    assert names(done.graph) == ["chunk", "mul", "ones", "add"]
    mul = next(n for n in done.graph.nodes if n.name.startswith("mul"))
    part, gate = mul.args
    assert part.args[1] == 0
    assert part.meta["shape"] == (3, 2)
    assert gate.name in done.inputs
    assert len(done.inputs) == 2


def test_what_a_network_keeps_of_the_run_can_be_trained_with() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)
            self.kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = torch.arange(3.0) + 1
            return functional.relu(self.line(x)) * self.kept

    network = Caching()
    record_operations(network, (torch.randn(2, 3),))
    assert network.kept is not None
    assert not network.kept.is_inference()
    network(torch.randn(2, 3)).sum().backward()
    assert network.line.weight.grad is not None


def test_a_network_that_counts_its_calls_is_left_as_it_was() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.count = nn.Linear(3, 3), nn.Buffer(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return self.line(x)

    network = Counting()
    record_operations(network, (torch.randn(2, 3),))
    assert float(network.count) == 0
    assert not network.count.is_inference()


@pytest.mark.parametrize("read", [lambda x: bool(x.sum() > 0), lambda x: x.max().item(), lambda x: torch.equal(x, x)])
def test_code_that_reads_values_is_refused_and_leaves_no_hook(read) -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model("resnet8", generator=torch.Generator(), width=2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            return y if read(y) else -y

    network = Reading().eval()
    with pytest.raises(ValueError, match="reads a value out of a tensor"):
        record_operations(network, (torch.randn(2, 3, 8, 8),))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
