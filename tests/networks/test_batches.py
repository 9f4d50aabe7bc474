import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks import LengthGrouped


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_an_epoch_has_each_row_at_most_once_and_fills_every_batch(rows, batch, pool, seed):
    batch = min(batch, rows)
    lengths = torch.randint(1, 20, (rows,), generator=torch.Generator().manual_seed(seed))
    source = LengthGrouped(torch.arange(rows), lengths, lengths=lengths, batch_size=batch, pool=pool)
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(rows // batch):
        numbers, of_rows = source.next(generator)
        assert numbers.shape == (batch,)
        assert torch.equal(lengths[numbers], of_rows)
        seen += numbers.tolist()
    assert len(set(seen)) == len(seen)


def test_batches_hold_rows_of_like_length_and_come_in_random_order():
    lengths = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    source = LengthGrouped(lengths, lengths=lengths, batch_size=8, pool=8)
    generator = torch.Generator().manual_seed(1)
    first = [source.next(generator)[0] for _ in range(8)]
    assert all(int(b.max() - b.min()) == 7 for b in first)
    assert [int(b.min()) for b in first] != sorted(int(b.min()) for b in first)
    second = [source.next(generator)[0] for _ in range(8)]
    assert [int(b.min()) for b in first] != [int(b.min()) for b in second]


def test_a_state_put_back_goes_on_with_the_same_batches():
    lengths = torch.arange(20)
    source, generator = LengthGrouped(lengths, lengths=lengths, batch_size=4), torch.Generator().manual_seed(0)
    source.next(generator)
    state, at = source.state_dict(), generator.get_state()
    want = [source.next(generator)[0] for _ in range(7)]
    other, again = LengthGrouped(lengths, lengths=lengths, batch_size=4), torch.Generator()
    again.set_state(at)
    other.load_state_dict(state)
    assert all(torch.equal(a, other.next(again)[0]) for a in want)
    with pytest.raises(ValueError, match="the saved batches have shape"):
        LengthGrouped(lengths, lengths=lengths, batch_size=5).load_state_dict(state)


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="share their first axis"):
        LengthGrouped(torch.zeros(3), lengths=torch.zeros(4), batch_size=2)
    with pytest.raises(ValueError, match="batch_size must be from 1 to 3"):
        LengthGrouped(torch.zeros(3), lengths=torch.zeros(3), batch_size=4)
