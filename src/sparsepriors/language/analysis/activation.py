"""How sparse the activations of a model are: exact counts by layer and neuron, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from sparsepriors import _checks
from sparsepriors.networks.activations import activation_modules, matches, smooth

_RECTIFYING: dict[Any, str] = {functional.relu: "relu", torch.relu: "relu", torch.relu_: "relu", Tensor.relu: "relu",
                               Tensor.relu_: "relu", functional.relu6: "relu6"}
_SMOOTH: dict[Any, str] = {functional.gelu: "gelu", functional.silu: "silu", functional.mish: "mish",
                           functional.elu: "elu", functional.leaky_relu: "leaky_relu",
                           functional.hardswish: "hardswish"}


@dataclass
class _Counts:
    """Of one place: how often each neuron was active, on how many tokens, and the most of one token."""

    active: Tensor
    tokens: int = 0
    most: int = 0


class ActivationSparsity:
    """A meter of active neurons: enter it, run the model, read it.

    Activation functions are seen whether they are modules (``blocks.0.mlp.act``, as in the models of transformers) or
    functions that a module calls (``layers.0.relu()``). What is called several times has a place for each call: the
    second is ``layers.0.relu()[1]``, or ``act[1]`` of a module that layers share. Counts are integers, so that batches
    weigh by their tokens. The model computes what it did before, gradients included.

    Padding is left out: where the model is called with a two-dimensional ``attention_mask``, tokens with 0 in it are
    not counted. Otherwise set ``mask``, ``(batch, tokens)``, true where a token counts.

    Parameters
    ----------
    model
        Any module, neither compiled nor scripted.
    match
        Names of the places that are counted, with wildcards.
    threshold
        By default a neuron is active if its activation is not zero, which for ReLU means that it is positive. GELU,
        SiLU and the like are hardly ever zero: with a threshold t a neuron is active if ``|a| > t``. That is another
        measure; ``measure`` says which one it is.
    axis
        Where the neurons are: the last axis of tokens, 1 of the maps of a convolution.

    Raises
    ------
    TypeError
        If the model is no module, or is compiled or scripted, where hooks see nothing; if ``axis`` is no integer.
    ValueError
        If a place without exact zeros is matched and there is no threshold, or activations are not finite.

    References
    ----------
    Li et al. (2023), The lazy neuron phenomenon: on emergence of activation sparsity in transformers, ICLR,
    arXiv:2210.06313, section 2.
    """

    def __init__(self, model: nn.Module, *, match: str | Sequence[str] = "*", threshold: float | None = None,
                 axis: int = -1) -> None:
        modules = activation_modules(model)
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod") or module._compiled_call_impl:
                raise TypeError(f"model must be neither compiled nor scripted, where activations cannot be seen; got "
                                f"{type(module).__name__} at {name or 'its root'}")
        if threshold is not None:
            _checks.nonnegative("threshold", threshold)
        if not isinstance(axis, int) or isinstance(axis, bool):
            raise TypeError(f"axis must be an integer, got {type(axis).__name__}")
        self.model, self.match, self.threshold, self.axis = model, match, threshold, axis
        self.mask: Bool[Tensor, "batch tokens"] | None = None
        for name, module in modules.items():
            if matches(name, match) and smooth(module):
                self._must_have_threshold(name, type(module).__name__)
        self._watch = _Watch(model, modules, self._observe)
        self._counts: dict[str, _Counts] = {}
        self._seen: set[str] = set()

    @property
    def measure(self) -> str:
        """What counts as active."""
        return "a != 0" if self.threshold is None else f"|a| > {self.threshold:g}"

    def __enter__(self) -> Self:
        """Begin to count; counts of an earlier time stay, see `reset`."""
        self._watch.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Leave the model as it was."""
        self._watch.__exit__(kind, error, traceback)

    def reset(self) -> None:
        """Forget all counts."""
        self._counts, self._seen = {}, set()

    def percent_nonzero(self) -> dict[str, float]:
        """Of each place, the percentage of active neurons, averaged over tokens.

        This and the other readings raise `RuntimeError` if no place was reached; the message lists those there are.
        """
        return {name: 100 * int(c.active.sum()) / (c.tokens * len(c.active)) for name, c in self._read().items()}

    def mean_percent(self) -> float:
        """The mean of `percent_nonzero` over the places."""
        percent = self.percent_nonzero()
        return sum(percent.values()) / len(percent)

    def neuron_frequency(self) -> dict[str, Float[Tensor, " neurons"]]:
        """Of each place, the share of tokens on which each neuron is active."""
        return {name: c.active.double() / c.tokens for name, c in self._read().items()}

    def dead(self) -> dict[str, int]:
        """Of each place, how many neurons were active on no token."""
        return {name: int((c.active == 0).sum()) for name, c in self._read().items()}

    def most(self) -> dict[str, int]:
        """Of each place, the largest number of neurons that one token had active."""
        return {name: c.most for name, c in self._read().items()}

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each place, for a table or a data frame."""
        percent, dead = self.percent_nonzero(), self.dead()
        return [{"place": name, "measure": self.measure, "neurons": len(c.active), "tokens": c.tokens,
                 "percent_nonzero": percent[name], "most": c.most, "dead": dead[name]}
                for name, c in self._read().items()]

    def to_text(self) -> str:
        """A table for the terminal."""
        rows = self.rows()
        width = max(len(r["place"]) for r in rows)
        lines = [f"{'place':{width}}  neurons  active %     most     dead    tokens   ({self.measure})"]
        lines += [f"{r['place']:{width}}  {r['neurons']:7}  {r['percent_nonzero']:8.2f}  {r['most']:7}  {r['dead']:7}"
                  f"  {r['tokens']:8}" for r in rows]
        return "\n".join(lines)

    def _read(self) -> dict[str, _Counts]:
        if not self._counts:
            seen = sorted(self._seen | set(self._watch.modules))
            leaves = [f"{name} ({type(m).__name__})" for name, m in self.model.named_modules()
                      if name and not any(True for _ in m.children()) and not any(True for _ in m.parameters())]
            raise RuntimeError(f"no activation was counted at places that match {self.match!r}; activation functions: "
                               f"{', '.join(seen) or 'none'}; other modules without weights: "
                               f"{', '.join(leaves) or 'none'}")
        return self._counts

    @torch.no_grad()
    def _observe(self, place: str, kind: str, is_smooth: bool, out: Tensor, passed: Tensor | None) -> None:
        self._seen.add(place)
        if not matches(place, self.match):
            return
        if is_smooth:
            self._must_have_threshold(place, kind)
        rows = _tokens(place, out.detach().movedim(self.axis, -1), passed if self.mask is None else self.mask)
        if not len(rows):
            return
        if not _checks.all_finite(rows):
            raise ValueError(f"activations at {place} must be finite, got NaN or infinite ones")
        active = rows != 0 if self.threshold is None else rows.abs() > self.threshold
        counts = self._counts.setdefault(place, _Counts(torch.zeros(rows.shape[-1], dtype=torch.int64,
                                                                    device=rows.device)))
        if counts.active.shape != rows.shape[-1:]:
            raise ValueError(f"{place} must have equally many neurons at every call, got {rows.shape[-1]} after "
                             f"{len(counts.active)}")
        counts.active += active.sum(dim=0)
        counts.tokens += len(rows)
        counts.most = max(counts.most, int(active.sum(dim=1).max()))

    def _must_have_threshold(self, place: str, kind: str) -> None:
        if self.threshold is None:
            raise ValueError(f"threshold must be given for {kind} at {place}, which is hardly ever zero; or leave the "
                             f"place out by match")


class _Watch(TorchFunctionMode):
    """Tells what activation functions of a model return, be they modules or functions, and which mask was passed."""

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module], observe: Callable[..., None]) -> None:
        super().__init__()
        once = {id(module): name for name, module in reversed(modules.items())}   # of several names the first
        self.model, self.observe = model, observe
        self.modules = {name: modules[name] for name in modules if once[id(modules[name])] == name}
        self.passed: Tensor | None = None
        self.running: list[tuple[str, dict[str, int]]] = []
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        if self.handles:
            raise RuntimeError("this meter is counting already")
        for name, module in self.model.named_modules():
            self.handles += [module.register_forward_pre_hook(self._begin(name)),
                             module.register_forward_hook(self._end, always_call=True)]
        self.handles.append(self.model.register_forward_pre_hook(self._take_mask, with_kwargs=True))
        for name, module in self.modules.items():
            self.handles.append(module.register_forward_hook(self._returned(name)))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self.handles:
            handle.remove()
        self.handles, self.running, self.passed = [], [], None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = _RECTIFYING.get(func) or _SMOOTH.get(func)
        # A module that is itself an activation function tells what it returns, whatever it calls.
        if kind and not any(name in self.modules for name, _ in self.running):
            owner, calls = self.running[-1] if self.running else ("", {})
            place = f"{owner}.{kind}()" if owner else f"{kind}()"
            self.observe(_numbered(place, calls), kind, func in _SMOOTH, out, self.passed)
        return out

    def _begin(self, name: str) -> Callable[..., None]:
        return lambda module, args: self.running.append((name, {}))

    def _end(self, module: nn.Module, args: Any, out: Any) -> None:
        if self.running:
            self.running.pop()

    def _take_mask(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        passed = kwargs.get("attention_mask")
        self.passed = passed.bool() if isinstance(passed, Tensor) and passed.ndim == 2 else None

    def _returned(self, name: str) -> Callable[..., None]:
        def returned(module: nn.Module, args: Any, out: Tensor) -> None:
            calls = self.running[0][1] if self.running else {}   # of the outermost module, which may share this one
            self.observe(_numbered(name, calls), type(module).__name__, smooth(module), out, self.passed)

        return returned


def _numbered(place: str, calls: dict[str, int]) -> str:
    """The place, with the number of the call from the second one on."""
    number = calls[place] = calls.get(place, -1) + 1
    return f"{place}[{number}]" if number else place


def _tokens(place: str, a: Tensor, mask: Tensor | None) -> Tensor:
    """The tokens that count, one a row. A mask may be longer than the tokens are, where earlier ones are cached."""
    if mask is None:
        return a.reshape(-1, a.shape[-1])
    if a.ndim == 3 and len(a) == len(mask) and a.shape[1] <= mask.shape[1]:
        return a[mask[:, mask.shape[1] - a.shape[1]:]]
    if a.ndim == 2 and len(a) == mask.numel():
        return a[mask.reshape(-1)]
    raise ValueError(f"mask must be (batch, tokens) of the activations at {place}, got {tuple(mask.shape)} for "
                     f"activations {tuple(a.shape)}")
