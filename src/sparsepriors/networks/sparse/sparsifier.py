"""The machine that runs a plan on a model and an optimizer, inside anybody's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.sparse import moves, processes
from sparsepriors.networks.sparse.attach import (
    attach,
    detach,
    fitting,
    must_hold,
    put_back,
    sharing,
    state_of,
)
from sparsepriors.networks.sparse.cost import TrainingCost
from sparsepriors.networks.sparse.distribute import finite
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.report import TrainingReport, training_report
from sparsepriors.networks.sparse.rule import MaskedWeight, zero_outside
from sparsepriors.networks.sparse.schedule import Event
from sparsepriors.networks.sparse.score import Probe, Score, View, checked_generator, finite_weights
from sparsepriors.networks.sparse.steps import before_step
from sparsepriors.priors.patterns import pack_mask, unpack_mask

_MOMENTUM = 0.9   # of the running mean of gradients that SNFS scores by


class Sparsifier:
    """Keeps the selected weights of a model in a pattern while it is trained.

    Each selected weight becomes a `torch.nn.utils.parametrize` parametrization whose stored parameter is the one that
    the optimizer already holds. Hooks of the optimizer do the rest, so that ``optimizer.step()``, called by anybody's
    loop, trainer or gradient scaler, is one step of the plan:

        sparsifier = Sparsifier(model, presets.rigl(density=0.1), optimizer, total_steps=steps, generator=generator)
        for x, y in batches:
            loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad()
        report = sparsifier.finalize()

    In data-parallel training wrap the model after this; collected gradients are averaged over the processes and
    masks are those of process 0.

    Parameters
    ----------
    model
        Changed in place.
    plan
        What to do.
    optimizer
        Built on the parameters of ``model``; holds every selected weight.
    total_steps
        Steps of the optimizer, on which schedules given as shares depend.
    generator
        The only source of randomness; needed if a score draws.
    probe
        A batch for scores that need data (SNIP, GraSP), and for counting multiply-adds.
    example
        One input (or a tuple of arguments) for counting multiply-adds; by default the probe's first.

    Raises
    ------
    TypeError, ValueError
        If nothing is selected, a layer does not fit the pattern (named), the optimizer lacks a selected weight, the
        plan cannot run for this many steps or lacks something that a score needs. Nothing is attached then.
    FloatingPointError
        If a weight or score is NaN or infinite.
    """

    def __init__(self, model: nn.Module, plan: SparsePlan, optimizer: torch.optim.Optimizer, *, total_steps: int,
                 generator: torch.Generator | None = None, probe: Probe | None = None,
                 example: Tensor | tuple[Any, ...] | None = None) -> None:
        if not isinstance(plan, SparsePlan):
            raise TypeError(f"plan must be a SparsePlan, got {type(plan).__name__}")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if probe is not None:
            _checks.instance("probe", probe, Probe)
        plan.check(total_steps)
        self.model, self.plan, self.optimizer, self.total_steps = model, plan, optimizer, total_steps
        self.step_count = 0
        self._generator, self._probe = checked_generator(generator), probe
        self.example = probe.inputs[:1] if example is None and probe is not None else example
        for score in {plan.score, plan.grow} - {None}:
            _can_score(score, self._generator, probe)
        if plan.distribution.draws and generator is None:
            raise ValueError(f"{type(plan.distribution).__name__} draws positions and needs a generator, which was not "
                             f"given")
        selected, unfit = fitting(model, plan, total_steps)
        must_hold(optimizer, selected)
        self._selected = selected
        self.notes = (*unfit, *sharing(model, selected))
        self._parameters = {name: s.parameter for name, s in selected.items()}
        finite_weights(self._parameters)
        plan.distribution.check(plan.pattern, self._shapes())
        self._momenta: dict[str, Tensor] = {}
        self._saved: dict[str, Tensor] | None = None
        self._changed = self.updates = 0
        sizes = {name: p.numel() for name, p in self._parameters.items()}
        self.cost = None if self.example is None else TrainingCost.of(model, sizes, self.example)
        event = plan.schedule.event(0, total_steps, plan.pattern)
        masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in self._parameters.items()}
        if event is not None and event.prune is not None:
            masks = self._drawn(plan.init, event)
        self._cells = {name: MaskedWeight(mask, plan.rule) for name, mask in masks.items()}
        attach(model, selected, self._cells)
        self._share_masks()
        self.fired = {name: mask.clone() for name, mask in self.masks.items()}
        self.always = {name: mask.clone() for name, mask in self.masks.items()}
        self._counts = {name: int(torch.count_nonzero(mask)) for name, mask in self.masks.items()}
        self._clean(self.masks)
        if plan.scale_init:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter *= (parameter.numel() / max(1, self._counts[name])) ** 0.5
        if event is not None and event.save:
            self._saved = state_of(model, self._cells)
        self._handles = [before_step(optimizer, self._before),
                         optimizer.register_step_post_hook(lambda *_: self._after())]
        self._look_ahead()

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks of the moment by parameter name, True where a weight is kept; not copies."""
        return {name: cell.mask for name, cell in self._cells.items()}

    @property
    def beta(self) -> float:
        """Factor of the weights outside the masks in the next forward pass; 0 unless the rule softens masks."""
        return self.plan.rule.beta(self.step_count, self.total_steps)

    @property
    def density(self) -> float:
        """Share of the selected weights that is kept."""
        return sum(self._counts.values()) / sum(p.numel() for p in self._parameters.values())

    @property
    def churn(self) -> float:
        """Mask entries that changed so far, over the number of selected weights."""
        return self._changed / sum(p.numel() for p in self._parameters.values())

    def step(self) -> None:
        """One step: the same as ``optimizer.step()``."""
        self.optimizer.step()

    def report(self) -> TrainingReport:
        """The books so far: weights, bytes and multiply-adds by layer, the cost of training, how masks moved."""
        return training_report(self)

    def finalize(self, *, force: bool = False) -> TrainingReport:
        """Leave a plain module with exact zeros outside the masks, and return the report.

        Raises
        ------
        RuntimeError
            If the mask is still soft (the network uses weights that will be zero), unless ``force``; or if this was
            called before.
        """
        self._attached()
        if self.beta > 0 and not force:
            raise RuntimeError(f"the mask is still soft after {self.step_count} of {self.total_steps} steps "
                               f"(beta = {self.beta:.3g}): the network uses weights that would become zero; train to "
                               f"the end of the decay, or finalize(force=True)")
        for cell in self._cells.values():
            cell.beta = 0.0
        report = self.report()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        detach(self.model, self._selected)
        return report

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on besides model and optimizer: plain data and tensors."""
        self._attached()
        return {"plan": self.plan.to_dict(), "step": self.step_count, "total_steps": self.total_steps,
                "shapes": {n: list(s) for n, s in self._shapes().items()},
                "masks": {n: pack_mask(m) for n, m in self.masks.items()},
                "fired": {n: pack_mask(m) for n, m in self.fired.items()},
                "always": {n: pack_mask(m) for n, m in self.always.items()},
                "momenta": dict(self._momenta), "saved": self._saved, "changed": self._changed, "updates": self.updates,
                "cost": None if self.cost is None else [self.cost.spent, self.cost.dense, self.cost.scoring],
                "generator": None if self._generator is None else self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put a state back; model and optimizer are restored by their own.

        Raises
        ------
        ValueError
            If the state is of another plan, number of steps, or of weights of other names or shapes. Of a plan with a
            `ScoreFunction`, whose function no file can hold, the function's name is compared.
        """
        self._attached()
        if state["plan"] != self.plan.to_dict() or state["total_steps"] != self.total_steps:
            raise ValueError("the state is of another plan or number of steps: it has "
                             f"{state['total_steps']} steps of {state['plan']}")
        if set(state["masks"]) != set(self._cells):
            raise ValueError(f"the state has masks of other weights: {sorted(set(state['masks']) ^ set(self._cells))}")
        for name, shape in self._shapes().items():
            if tuple(state["shapes"][name]) != shape:
                raise ValueError(f"the state does not fit {name}: it has a mask of shape "
                                 f"{tuple(state['shapes'][name])}, the weight has {shape}")
        unpacked: dict[str, dict[str, Tensor]] = {}
        for kind in ("masks", "fired", "always"):
            unpacked[kind] = {}
            for name, bits in state[kind].items():
                parameter = self._parameters[name]
                try:
                    unpacked[kind][name] = unpack_mask(bits, tuple(parameter.shape)).to(parameter.device)
                except ValueError as e:
                    raise ValueError(f"the state does not fit {name}: {e}") from e
        for name, mask in unpacked["masks"].items():
            self._cells[name].mask.copy_(mask)
        self.fired, self.always = unpacked["fired"], unpacked["always"]
        self._counts = {name: int(torch.count_nonzero(mask)) for name, mask in unpacked["masks"].items()}
        self.step_count, self._changed, self.updates = state["step"], state["changed"], state["updates"]
        self._momenta = {n: m.to(self._parameters[n].device, copy=True) for n, m in state["momenta"].items()}
        self._saved = None if state["saved"] is None else {n: v.clone() for n, v in state["saved"].items()}
        if self.cost is not None and state["cost"] is not None:
            self.cost.spent, self.cost.dense, self.cost.scoring = state["cost"]
        if self._generator is not None and state["generator"] is not None:
            self._generator.set_state(state["generator"])
        self._look_ahead()

    # One step of the optimizer.

    def _before(self) -> None:
        if not self._collects:
            return
        for name, cell in self._cells.items():
            if cell.gradient is None:
                raise RuntimeError(f"the plan needs the gradient of {name} at step {self.step_count + 1}, but no "
                                   f"backward pass has reached it since the last one")
            processes.average(cell.gradient)
            finite(name, cell.gradient)
        if self._due is not None and self._due.move and self.plan.skip_update:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None   # an optimizer passes over parameters without a gradient

    @torch.no_grad()
    def _after(self) -> None:
        self.step_count += 1
        if self.cost is not None:
            self.cost.add_step(self._counts, soft=self._beta > 0,
                                dense_gradient=self.plan.rule.dense_gradient or self._collects)
        if "momenta" in self.plan.needs:
            for name, cell in self._cells.items():
                assert cell.gradient is not None
                old = self._momenta.setdefault(name, torch.zeros_like(cell.gradient))
                old.mul_(_MOMENTUM).add_(cell.gradient, alpha=1 - _MOMENTUM)
        self._pull()
        if self._due is not None:
            self._apply(self._due)
        for cell in self._cells.values():
            cell.gradient = None
        self._look_ahead()

    def _pull(self) -> None:
        """What the rule does to stored weights outside the masks after a step."""
        rates = {id(p): group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        for name, cell in self._cells.items():
            parameter = self._parameters[name]
            if self.plan.rule.keeps_pruned:
                self.plan.rule.after_step(parameter, cell.mask, float(rates[id(parameter)]))
            else:
                zero_outside(parameter, cell.mask)

    def _look_ahead(self) -> None:
        """What the coming step needs to know before its backward pass."""
        self._due = self.plan.schedule.event(self.step_count + 1, self.total_steps, self.plan.pattern)
        due = self._due is not None and (self._due.move > 0 or self._due.prune is not None)
        self._collects = "momenta" in self.plan.needs or (due and "gradients" in self.plan.needs)
        self._beta = self.beta
        for cell in self._cells.values():
            cell.collecting, cell.beta = self._collects, self._beta

    # Masks.

    def _apply(self, event: Event) -> None:
        old = {name: mask.clone() for name, mask in self.masks.items()}
        if event.open:
            new = {name: torch.ones_like(mask) for name, mask in old.items()}
        elif event.prune is not None:
            new = self._drawn(self.plan.score, event)
        elif event.move:
            new = self._moved(event.move)
        else:
            new = old
        for name, cell in self._cells.items():
            cell.mask.copy_(new[name])
        if event.save:
            self._saved = state_of(self.model, self._cells)
        if event.rewind:
            self._rewind()
        self._share_masks()
        new = self.masks
        self._clean(old)
        if event.move or event.prune is not None or event.open:
            self._changed += moves.sad(old, new)
            self.updates += 1
            self._counts = {name: int(torch.count_nonzero(mask)) for name, mask in new.items()}
            for name, mask in new.items():
                self.fired[name] |= mask
                self.always[name] &= mask

    def _view(self) -> View:
        gradients = {n: c.gradient for n, c in getattr(self, "_cells", {}).items() if c.gradient is not None}
        return View({n: p.detach() for n, p in self._parameters.items()}, self._generator, gradients, self._momenta,
                    getattr(self, "fired", {}), self.model, getattr(self.plan.pattern, "density", None), self._probe)

    def _drawn(self, score: Score, event: Event) -> dict[str, Tensor]:
        assert event.prune is not None
        view = replace(self._view(), density=getattr(event.prune, "density", None))
        return self.plan.distribution.masks(event.prune, score(view), generator=self._generator)

    def _moved(self, fraction: float) -> dict[str, Tensor]:
        view, masks, plan = self._view(), self.masks, self.plan
        assert plan.grow is not None
        worth, growth = plan.score(view), plan.grow(view)
        for scores in (worth, growth):
            for name, score in scores.items():
                finite(name, score)
        left, room, counts = {}, {}, {}
        for name, mask in masks.items():
            counts[name] = moves.dropped(self._counts[name], fraction)
            if plan.forbid_regrow:
                counts[name] = min(counts[name], mask.numel() - self._counts[name])
            left[name] = moves.drop(mask, worth[name], counts[name])
            room[name] = mask.numel() - int((mask if plan.forbid_regrow else left[name]).sum())
        if plan.redistribute:
            means = {n: max(0.0, float(growth[n][mask].mean())) if mask.any() else 0.0 for n, mask in left.items()}
            counts = moves.redistributed(sum(counts.values()), means, room)
        new = {}
        for name, mask in left.items():
            score = growth[name]
            if plan.forbid_regrow:   # what was just dropped comes after everything else
                score = torch.where(masks[name] & ~mask, -torch.inf, score)
            new[name] = moves.grow(mask, score, counts[name])
        return new

    def _clean(self, old: Mapping[str, Tensor]) -> None:
        """Zero weights outside the masks, and the optimizer's memory of weights that were not kept before and after."""
        if self.plan.rule.keeps_pruned:
            return
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                mask = self._cells[name].mask
                zero_outside(parameter, mask)
                forgotten = ~(old[name] & mask)
                for value in self.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.masked_fill_(forgotten.to(value.device), 0)

    def _share_masks(self) -> None:
        """Give every process the masks of process 0."""
        for cell in self._cells.values():
            processes.share(cell.mask)

    def _rewind(self) -> None:
        assert self._saved is not None
        put_back(self.model, self._saved)
        for state in self.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in self._parameters.items()}

    def _attached(self) -> None:
        if not self._handles:
            raise RuntimeError("this sparsifier was finalized: the model is plain and its masks are in the report")


def _can_score(score: Score, generator: torch.Generator | None, probe: Probe | None) -> None:
    """Raise `ValueError` now if a score of later steps will lack something."""
    for need, given in (("generator", generator), ("probe", probe)):
        if need in score.needs and given is None:
            raise ValueError(f"{type(score).__name__} needs {need}, which was not given")
