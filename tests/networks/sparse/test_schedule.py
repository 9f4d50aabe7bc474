import json
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsepriors.networks.sparse.schedule import (
    Alternating,
    AtInit,
    Event,
    EveryStep,
    OneShot,
    Periodic,
    Polynomial,
    Rounds,
    Schedule,
    StructureDecay,
)
from sparsepriors.priors.patterns import NM, Balanced, Block, Channel, Pattern, Unstructured

Training = tuple[partial[Any], int, partial[Any]]


def made(kind: Any, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[partial[Any]]:
    """Objects still to be built: the run-time type checks draw random numbers, which strategies must not."""
    return st.tuples(*arguments).map(lambda drawn: partial(kind, *drawn))


shares = st.floats(0, 1)
periods = st.integers(1, 40)
spans = st.tuples(shares, shares).filter(lambda s: s[0] < s[1])
by_density = st.one_of([made(kind, st.floats(0.01, 1)) for kind in (Unstructured, Balanced, Block, Channel)])
nm = st.integers(1, 5).flatmap(lambda k: made(NM, st.integers(0, k - 1).map(lambda j: 2**j), st.just(2**k)))

periodic = made(lambda every, span, *rest: Periodic(every, span[0], span[1], *rest), periods, spans, shares,
                st.sampled_from(["cosine", "linear", "constant"]))
polynomial = made(lambda every, span, power: Polynomial(every, span[0], span[1], power), periods, spans,
                  st.floats(0.5, 5))
alternating = made(lambda warmup, phase, finish: Alternating(warmup, phase, finish * (1 - warmup)), shares,
                   st.floats(0.01, 1), shares)
rounds = made(Rounds, st.integers(2, 8), st.floats(0, 0.9))
decay = made(lambda form, dense, finetune: StructureDecay(form, dense, finetune * (0.99 - dense)),
             st.sampled_from(["stepwise", "geometric", "densify"]), st.floats(0, 0.9), shares)
one_density = st.one_of(made(AtInit), made(OneShot, shares), made(EveryStep, periods))


def trainings(*of: st.SearchStrategy[Any]) -> st.SearchStrategy[Training]:
    """A schedule, a length and a pattern, to be built by `begun`."""
    return st.one_of([st.tuples(schedule, st.integers(1, 200), nm if schedule is decay else by_density)
                      for schedule in of or (one_density, periodic, polynomial, alternating, rounds, decay)])


def begun(training: Training) -> tuple[Any, int, Any]:
    """The schedule, the number of steps and the pattern, if they go together."""
    schedule, total, pattern = training[0](), training[1], training[2]()
    total *= schedule.rounds if isinstance(schedule, Rounds) else 1
    try:
        schedule.check(total, pattern)
    except ValueError:
        assume(False)
    return schedule, total, pattern


def events(schedule: Schedule, total: int, pattern: Pattern) -> list[Event | None]:
    return [schedule.event(step, total, pattern) for step in range(total + 1)]


def density_of(pattern: Pattern | None) -> float:
    assert isinstance(pattern, NM | Unstructured | Balanced | Block | Channel)
    return pattern.density


@given(trainings())
def test_the_first_event_says_how_the_training_begins(training):
    schedule, total, pattern = begun(training)
    first = schedule.event(0, total, pattern)
    assert first is not None
    assert (first.prune is None) == first.open


@given(trainings())
def test_the_last_masks_have_the_pattern_of_the_plan(training):
    schedule, total, pattern = begun(training)
    drawn = [e for e in events(schedule, total, pattern) if e is not None and (e.prune is not None or e.open)]
    assert drawn[-1].prune == pattern


@given(trainings(), st.randoms(use_true_random=False))
def test_an_event_depends_on_the_step_alone(training, random):
    schedule, total, pattern = begun(training)
    forward = events(schedule, total, pattern)
    steps = list(range(total + 1))
    random.shuffle(steps)
    assert {s: schedule.event(s, total, pattern) for s in steps} == dict(enumerate(forward))


@given(trainings())
def test_json_keeps_a_schedule_and_what_it_does(training):
    schedule, total, pattern = begun(training)
    again = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert events(again, total, pattern) == events(schedule, total, pattern)


@given(trainings(polynomial, rounds, decay))
def test_density_moves_one_way_to_that_of_the_plan(training):
    schedule, total, pattern = begun(training)
    densities = [density_of(e.prune) for e in events(schedule, total, pattern)
                 if e is not None and e.prune is not None]
    rising = isinstance(schedule, StructureDecay) and schedule.form == "densify"
    assert densities == pytest.approx(sorted(densities, reverse=not rising))
    assert densities[-1] == density_of(pattern)


@given(trainings(polynomial))
def test_gradual_pruning_follows_the_published_polynomial(training):
    schedule, total, pattern = begun(training)
    first, last = schedule.start * total, schedule.end * total
    for step, event in enumerate(events(schedule, total, pattern)):
        if event is not None and event.prune is not None:
            t = min((step - first) / (last - first), 1)
            published = (1 - pattern.density) * (1 - (1 - t) ** schedule.power)
            assert 1 - density_of(event.prune) == pytest.approx(published, abs=1e-9)
            assert step % schedule.every == 0 or step == math.ceil(last)


@given(trainings(periodic))
def test_moves_shrink_and_keep_to_their_span(training):
    schedule, total, pattern = begun(training)
    moves = {step: e.move for step, e in enumerate(events(schedule, total, pattern))
             if e is not None and e.prune is None}
    shares = list(moves.values())
    assert all(a >= b for a, b in zip(shares, shares[1:], strict=False))
    assert all(0 <= share <= schedule.fraction for share in shares)
    assert all(step % schedule.every == 0 and schedule.start * total <= step < schedule.end * total for step in moves)
    if schedule.anneal == "constant":
        assert set(shares) <= {schedule.fraction}


@given(trainings(alternating))
def test_sparse_and_dense_phases_take_turns(training):
    schedule, total, pattern = begun(training)
    changes = [(step, e.open) for step, e in enumerate(events(schedule, total, pattern)) if e is not None]
    assert all(a[1] != b[1] for a, b in zip(changes, changes[1:], strict=False))
    assert all(opened or schedule.warmup * total <= step or schedule.finish == 1 for step, opened in changes)
    assert all(step < (1 - schedule.finish) * total or not opened for step, opened in changes)


@given(trainings(rounds))
def test_every_round_begins_from_weights_that_were_saved_before(training):
    schedule, total, pattern = begun(training)
    length = total // schedule.rounds
    found = events(schedule, total, pattern)
    saves = [step for step, e in enumerate(found) if e is not None and e.save]
    rewinds = [step for step, e in enumerate(found) if e is not None and e.rewind]
    assert saves == [round(schedule.rewind * length)]
    assert rewinds == [number * length for number in range(1, schedule.rounds)]
    assert saves[0] < rewinds[0]
    kept = [density_of(e.prune) for e in found if e is not None and e.prune is not None]
    assert kept == pytest.approx([pattern.density ** (r / (schedule.rounds - 1)) for r in range(1, schedule.rounds)])


@given(trainings(one_density))
def test_masks_of_one_density_are_drawn_whole(training):
    schedule, total, pattern = begun(training)
    found = [e for e in events(schedule, total, pattern) if e is not None]
    assert all(e.prune in (None, pattern) and not e.move for e in found)
