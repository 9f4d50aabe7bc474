"""A Ctrl-C or SIGTERM ends the work as such, also where compiled code turns it into an error of its own."""

import contextlib
import signal
import threading

import pytest
import torch

from sparsepriors.runs import Claim, Experiment, Paper, Scale
from sparsepriors.runs.execute import execute, read_status
from sparsepriors.runs.interrupts import interrupts_kept


class Interrupting:
    """A sequence whose first element is asked for by compiled code at the moment of the Ctrl-C."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        signal.raise_signal(signal.SIGINT)
        return 0.0


@pytest.fixture(autouse=True)
def _python_handler():
    """A suite that runs in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_tensor_constructor_loses_an_interrupt():
    with pytest.raises(ValueError, match="determine the shape"):
        torch.tensor(Interrupting())


def test_an_interrupt_that_became_an_error_is_raised_with_it_as_the_cause():
    with pytest.raises(KeyboardInterrupt) as caught, interrupts_kept():
        torch.tensor(Interrupting())
    assert "determine the shape" in str(caught.value.__cause__)


def test_an_interrupt_that_was_dropped_is_raised_at_the_end():
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached


def test_other_errors_pass_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="mine"), interrupts_kept():
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ValueError("mine")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_kept():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_thread_runs_the_block_as_it_is():
    done = []

    def work():
        with interrupts_kept():
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


def test_a_run_whose_interrupt_became_an_error_is_interrupted_and_not_failed(tmp_path):
    paper = Paper("lost-interrupt", "An interrupt is lost", "A. Nobody", 2020, "https://example.org/x", "priors",
                  ("Build a tensor.",), (Claim("c", "nothing", "not reported", "none"),))
    experiment = Experiment(paper, lambda scale, seed, run: torch.tensor(Interrupting()))
    with pytest.raises(KeyboardInterrupt):
        execute(experiment, tmp_path, scale=Scale.SMOKE, seed=0)
    status = read_status(tmp_path / "lost-interrupt" / "smoke" / "seed-0")
    assert status is not None
    assert (status.state, status.error) == ("interrupted", "")
