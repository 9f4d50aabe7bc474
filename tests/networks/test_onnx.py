"""A network that surgery made smaller leaves PyTorch and computes the same in ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsepriors.networks.models import model
from sparsepriors.networks.onnx import OnnxNetwork, write_onnx
from sparsepriors.networks.sparse import Global, prune_channels, scales
from sparsepriors.priors import Unstructured

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")   # the exporter's own


def test_the_smaller_network_gives_the_same_outputs_in_onnx_runtime(tmp_path: Path,
                                                                    generator: torch.Generator) -> None:
    network = model("resnet8", generator=generator, width=8)
    x = torch.randn(6, 3, 14, 14, generator=generator)
    network(x)   # running statistics move
    with torch.no_grad():
        for scale in scales(network).values():
            scale.copy_(torch.rand(len(scale), generator=generator) + 0.1)
    masks = Global().masks(Unstructured(0.5), {n: s.abs() for n, s in scales(network).items()})
    small = prune_channels(network, masks, x[:2])
    files = [write_onnx(tmp_path / f"{i}.onnx", m, x[:2]) for i, m in enumerate((network, small))]
    assert files[1].stat().st_size < 0.8 * files[0].stat().st_size
    assert small.training
    for file, module in zip(files, (network, small), strict=True):
        run = OnnxNetwork(file)
        module.eval()
        with torch.no_grad():
            for rows in (x, x[:1]):
                torch.testing.assert_close(run(rows), module(rows), atol=1e-5, rtol=1e-5)


@pytest.mark.public_door
def test_files_and_examples_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two or more"):
        write_onnx(tmp_path / "a.onnx", nn.Linear(3, 3), torch.zeros(1, 3))
    (tmp_path / "b.onnx").write_bytes(b"\x00not onnx")
    with pytest.raises(ValueError, match=r"b\.onnx is not a readable ONNX file"):
        OnnxNetwork(tmp_path / "b.onnx")
    with pytest.raises(FileNotFoundError):
        OnnxNetwork(tmp_path / "c.onnx")


@pytest.mark.public_door
@pytest.mark.parametrize(("module", "message"), [("onnxscript", "needs onnx and onnxscript"),
                                                 ("onnxruntime", "needs onnxruntime")])
def test_without_the_packages_the_message_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               module: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{message}: pip install 'sparsepriors\[deploy\]'"):
        if module == "onnxscript":
            write_onnx(tmp_path / "a.onnx", nn.Linear(3, 3), torch.zeros(2, 3))
        else:
            OnnxNetwork(tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.public_door
def test_a_network_of_two_inputs_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    x, y, z = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xyz")
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "sum", [x, y], [z])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "two.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ValueError, match="one input and one output, got"):
        OnnxNetwork(tmp_path / "two.onnx")
