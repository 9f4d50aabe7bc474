"""The contract of a sparse training method: a plan is put through a short training on a small network."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparsepriors.networks.sparse import PRESETS, Probe, SparsePlan, Sparsifier
from sparsepriors.priors.patterns import NM

STEPS = 40
"""Steps of the training; a plan in rounds needs a divisor of them."""

_WIDTH, _CLASSES, _EXAMPLES = 32, 4, 64

Check = Callable[[SparsePlan], bool | None]
_CHECKS: dict[str, Check] = {}


def check_sparsifier(plan: SparsePlan) -> list[str]:
    """Try a plan against every check that applies to it.

    The network is a perceptron of 32 inputs, two hidden layers of 32 and 4 outputs; the training has 40 steps, so that
    a schedule which waits for its hundredth step never acts: give it a shorter period.

    Returns
    -------
    list of str
        The names of the checks that were run.

    Raises
    ------
    AssertionError
        Naming each check that failed, with what was found.
    """
    ran, failures = [], []
    for name, check in _CHECKS.items():
        try:
            if check(plan) is not False:
                ran.append(name)
        except AssertionError as e:
            failures.append(f"{name}: {e}")
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as e:
            failures.append(f"{name}: raised {type(e).__name__}: {e}")
    if failures:
        raise AssertionError(f"{plan!r} breaks {len(failures)} of its contract's checks\n  " + "\n  ".join(failures))
    return ran


def sparsifier_checks() -> tuple[str, ...]:
    """The names of all checks."""
    return tuple(_CHECKS)


def plans() -> dict[str, SparsePlan]:
    """Every preset, with periods that suit the contract's short training."""
    found = {}
    for name, make in PRESETS.items():
        options = {"density": 0.25, "every": 5, "rounds": 4, "n": 2, "m": 4}
        known = inspect.signature(make).parameters
        if "n" in known:   # masks that follow the weights do so at every step
            options.pop("every")
        found[name] = make(**{k: v for k, v in options.items() if k in known})
    return found


class _Training:
    """The short training, step by step."""

    def __init__(self, plan: SparsePlan, seed: int = 0) -> None:
        fixed = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(_EXAMPLES, _WIDTH, generator=fixed)
        self.labels = torch.randint(_CLASSES, (_EXAMPLES,), generator=fixed)
        with torch.random.fork_rng(devices=[]):
            self.model = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(),
                                       nn.Linear(_WIDTH, _CLASSES))
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(torch.randn(p.shape, generator=fixed) / _WIDTH ** 0.5)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        self.sparsifier = Sparsifier(self.model, plan, self.optimizer, total_steps=STEPS,
                                     generator=torch.Generator().manual_seed(seed),
                                     probe=Probe(self.inputs, self.labels))

    def run(self, steps: int = STEPS, watch: Callable[[], None] = lambda: None) -> _Training:
        """Take so many steps."""
        for _ in range(steps):
            loss = nn.functional.cross_entropy(self.model(self.inputs), self.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            watch()
        return self

    def stored(self, name: str) -> Tensor:
        """The parameter behind a masked weight."""
        layer, _, weight = name.rpartition(".")
        return self.model.get_parameter(f"{layer}.parametrizations.{weight}.original").detach()


def _named(check: Check) -> Check:
    _CHECKS[check.__name__.removeprefix("_").replace("_", "-")] = check
    return check


@_named
def _json_round_trip(plan: SparsePlan) -> None:
    again = SparsePlan.from_dict(json.loads(json.dumps(plan.to_dict(), allow_nan=False)))
    assert again == plan, "the plan read back is another"


@_named
def _weights_outside_the_masks_are_zero(plan: SparsePlan) -> bool | None:
    if plan.rule.keeps_pruned:
        return False
    training = _Training(plan)

    def watch() -> None:
        for name, mask in training.sparsifier.masks.items():
            outside = training.stored(name)[~mask]
            assert not bool(outside.any()), f"{name} has weights outside its mask"
            assert not bool(torch.signbit(outside).any()), f"{name} holds -0.0"
            for value in training.optimizer.state[training.model.get_parameter(
                    f"{name.rpartition('.')[0]}.parametrizations.weight.original")].values():
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    assert not bool(value[~mask].any()), f"the optimizer remembers pruned weights of {name}"

    training.run(watch=watch)
    return None


@_named
def _the_end_has_the_density_asked_for(plan: SparsePlan) -> None:
    training = _Training(plan).run()
    masks = training.sparsifier.masks
    density = getattr(plan.pattern, "density", None)
    if isinstance(plan.pattern, NM):
        for name, mask in masks.items():
            assert torch.equal(plan.pattern.mask(mask.to(torch.float32)), mask), f"{name} is outside of {plan.pattern}"
    if density is not None:
        kept = sum(int(m.sum()) for m in masks.values())
        whole = sum(m.numel() for m in masks.values())
        assert abs(kept - density * whole) <= len(masks), f"{kept} of {whole} weights are kept, asked {density:g}"


@_named
def _finalize_leaves_a_plain_module(plan: SparsePlan) -> None:
    training = _Training(plan).run()
    keys = set(copy.deepcopy(training.model.state_dict()))
    training.model.eval()
    before = training.model(training.inputs)
    report = training.sparsifier.finalize()
    assert type(training.model[0]) is nn.Linear, f"a layer is left as {type(training.model[0]).__name__}"
    assert not any("parametrizations" in k for k in training.model.state_dict()), "parametrizations are left"
    assert any("parametrizations" in k for k in keys), "nothing was attached"
    assert torch.equal(training.model(training.inputs), before), "the outputs change"
    for name, mask in report.masks.items():
        assert not bool(training.model.get_parameter(name)[~mask].any()), f"{name} is not zero outside its mask"


@_named
def _resuming_gives_the_same_bits(plan: SparsePlan) -> None:
    whole = _Training(plan).run()
    first = _Training(plan).run(STEPS // 2 + 1)
    state = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict(), first.sparsifier.state_dict()))
    second = _Training(plan, seed=1)
    second.model.load_state_dict(state[0])
    second.optimizer.load_state_dict(state[1])
    second.sparsifier.load_state_dict(state[2])
    second.run(STEPS - STEPS // 2 - 1)
    _same(whole, second, "an interrupted training")


@_named
def _same_seed_same_bits(plan: SparsePlan) -> None:
    _same(_Training(plan).run(), _Training(plan).run(), "a second training")


@_named
def _global_randomness_is_left_alone(plan: SparsePlan) -> None:
    before = torch.get_rng_state()
    _Training(plan).run()
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator was used"


def _same(a: _Training, b: _Training, what: str) -> None:
    for (name, p), q in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        assert torch.equal(p, q), f"{name} of {what} differs"
