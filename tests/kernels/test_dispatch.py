import threading

import pytest
import torch

from sparsepriors.kernels import dispatch


def test_serial_torch_nests_and_gives_threads_back_after_an_error():
    with dispatch.torch_threads(2):
        with pytest.raises(KeyError), dispatch.serial_torch(), dispatch.serial_torch():
            assert (torch.get_num_threads(), dispatch.threads()) == (1, 2)
            raise KeyError
        assert (torch.get_num_threads(), dispatch.threads()) == (2, 2)


def test_threads_that_enter_serial_torch_one_after_the_other_leave_torch_as_it_was():
    """The second enters while the first is inside, where torch has one thread, and leaves after it."""
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
    counts = []

    def second():
        first_in.wait(10)
        with dispatch.serial_torch():
            counts.append(dispatch.threads())
            second_in.set()
            first_out.wait(10)
        counts.append(torch.get_num_threads())

    with dispatch.torch_threads(2):
        other = threading.Thread(target=second)
        other.start()
        with dispatch.serial_torch():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()
        other.join(10)
        new = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        new.start()
        new.join(10)
        assert torch.get_num_threads() == 2
    assert counts == [2, 2, 2]
