"""A network as an ONNX file, and such a file run by ONNX Runtime: what has become smaller leaves PyTorch."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from sparsepriors import _checks, _files

_HINT = "pip install 'sparsepriors[deploy]'"


def write_onnx(path: str | os.PathLike[str], model: nn.Module, example: Float[Tensor, "batch ..."]) -> Path:
    """Write a network in evaluation mode as one ONNX file, weights included, atomically.

    The first axis of the input is free, the others are those of the example. The file's input is called ``x``, its
    output ``y``.

    Parameters
    ----------
    path
        Where to.
    model
        Takes and gives one tensor; its modes are put back.
    example
        An input with two rows or more.

    Raises
    ------
    ImportError
        If onnx or onnxscript is not installed.
    TypeError, ValueError
        If the example is not a floating tensor of two rows or more.
    """
    if _checks.inexact("example", example).ndim < 2 or len(example) < 2:
        raise ValueError(f"example must be a batch of two or more, got shape {tuple(example.shape)}")
    try:
        for package in ("onnx", "onnxscript"):   # what the exporter imports in its midst
            importlib.import_module(package)
    except ImportError as e:
        raise ImportError(f"writing ONNX needs onnx and onnxscript: {_HINT}") from e
    modes = {m: m.training for m in model.modules()}
    try:
        program = torch.onnx.export(model.eval(), (example,), dynamo=True, verbose=False, input_names=["x"],
                                    output_names=["y"], dynamic_shapes=({0: torch.export.Dim.AUTO},))
    finally:
        for module, mode in modes.items():
            module.training = mode
    assert program is not None
    return _files.write_bytes(path, program.model_proto.SerializeToString())


class OnnxNetwork:
    """A file of `write_onnx`, run by ONNX Runtime on the CPU.

    Parameters
    ----------
    path
        An ONNX file with one input and one output.
    threads
        Of the runtime.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no network of one input and one output.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        try:
            import onnxruntime
            from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
        except ImportError as e:
            raise ImportError(f"running ONNX needs onnxruntime: {_HINT}") from e
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _checks.count("threads", threads, low=1)
        options.log_severity_level = 3
        data = Path(path).read_bytes()
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except (InvalidProtobuf, InvalidGraph, Fail) as e:
            raise ValueError(f"{path} is not a readable ONNX file: {e}") from e
        names = [[v.name for v in values] for values in (self._session.get_inputs(), self._session.get_outputs())]
        if [len(n) for n in names] != [1, 1]:
            raise ValueError(f"{path} must have one input and one output, got {names[0]} and {names[1]}")
        (self._input,), (self._output,) = names

    def __call__(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
        """The network's output for a batch, on the CPU."""
        return torch.from_numpy(self._session.run([self._output], {self._input: x.detach().cpu().numpy()})[0])
