"""Token selectors: exact budgets, ties, and a history that never looks ahead."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.priors import (
    AttentionSinkWindow,
    HeavyHitter,
    LocalWindow,
    OracleTopK,
    SparseWindow,
    Strided,
    TokenSelector,
)

RATIOS = st.sampled_from([0.05, 0.2, 1 / 3, 0.5, 0.6, 0.8, 1.0])


def attention(n, *, batch=1, groups=1, seed=0, heads=3):
    """Causal rows of ``heads`` summed heads, float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, groups, heads, n, n, generator=generator, dtype=torch.float64)
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    return logits.masked_fill(future, -torch.inf)


def sparse_rows(logits, selector, history, n, upto):
    """Decode from n cached tokens: select, attend, observe; yields what was selected at each step."""
    for t in range(n, upto):
        current = logits[..., t, :t].softmax(-1).sum(2) if selector.looks_ahead else None
        index = selector.select(history, current)
        asked = torch.cat([index, torch.full((*index.shape[:-1], 1), t)], dim=-1)
        row = logits[..., t, :].gather(-1, asked.clamp(min=0)[:, :, None].expand(-1, -1, logits.shape[2], -1))
        row = row.masked_fill((asked < 0)[:, :, None], -torch.inf).softmax(-1).sum(2)
        yield index
        history.observe(row[:, :, None], asked)


def prefilled(logits, selector, n, **options):
    history = selector.history(*logits.shape[:2], **options)
    if n:
        history.observe(logits[..., :n, :n].softmax(-1).nan_to_num(0).sum(2), tokens=n)
    return history


@given(RATIOS, st.integers(0, 500))
def test_half_the_budget_is_the_rounded_half_of_n_r(r, n):
    selector = LocalWindow(r)
    k = selector.half(n)
    assert n == 0 or abs(k - n * r / 2) <= 0.5 + 1e-9 or k == 1
    assert selector.budget(n) == min(n, 2 * k)
    assert selector.half(n + 1) - k in (0, 1)
    assert LocalWindow(1.0).budget(n) == n


@settings(max_examples=12)
@given(RATIOS, st.integers(0, 30), st.integers(1, 40), st.integers(0, 99), st.booleans(),
       st.sampled_from([SparseWindow, HeavyHitter, LocalWindow, AttentionSinkWindow, OracleTopK, Strided]))
def test_every_rule_selects_its_exact_budget_of_past_tokens(r, n, steps, seed, shared, kind):
    options = {"head_shared": shared} if kind in (SparseWindow, HeavyHitter, OracleTopK) else {}
    selector = kind(r, **options)
    logits = attention(n + steps, batch=2, groups=2, seed=seed)
    history = prefilled(logits, selector, n)
    for t, index in zip(range(n, n + steps), sparse_rows(logits, selector, history, n, n + steps), strict=True):
        missing = 1 if kind is HeavyHitter and selector.half(t) > selector.half(t - 1) else 0
        assert selector.budget(t) - missing <= index.shape[-1] <= selector.budget(t)
        assert (index[..., 1:] > index[..., :-1]).all()
        assert not index.numel() or (index.min() >= 0 and index.max() < t)
        if kind in (SparseWindow, HeavyHitter):
            k = selector.half(t)
            newest = torch.arange(t - k, t)
            assert (index[..., index.shape[-1] - k:] == newest).all()
            assert not index[..., :index.shape[-1] - k].numel() or index[..., :-k].max() < t - k


@settings(max_examples=12)
@given(RATIOS, st.integers(1, 40), st.integers(1, 60), st.integers(0, 99))
def test_the_running_sum_is_the_sum_of_the_last_k_rows_exactly(r, n, steps, seed):
    selector = SparseWindow(r)
    logits = attention(n + steps, seed=seed)
    history = prefilled(logits, selector, n)
    rows = torch.zeros(n + steps, n + steps, dtype=torch.float64)
    rows[:n, :n] = logits[0, 0, :, :n, :n].softmax(-1).sum(0)
    fixed = (rows * 2**30).round()
    for t, index in zip(range(n, n + steps), sparse_rows(logits, selector, history, n, n + steps), strict=True):
        k = selector.half(t)
        assert torch.equal(history.sums()[0, 0], fixed[t - k:t, :t].sum(0) / 2**30)
        asked = [*index[0, 0].tolist(), t]
        fixed[t, asked] = (logits[0, 0, :, t][:, asked].softmax(-1).sum(0) * 2**30).round()


@settings(max_examples=15)
@given(RATIOS, st.integers(2, 30), st.integers(0, 99), st.sampled_from([SparseWindow, HeavyHitter]))
def test_a_selection_does_not_depend_on_the_query_that_asks_or_later_ones(r, n, seed, kind):
    selector, logits = kind(r), attention(n + 1, seed=seed)
    other = logits.clone()
    other[..., n, :] = torch.randn(n + 1, dtype=torch.float64)
    a, b = (next(sparse_rows(x, selector, prefilled(x, selector, n), n, n + 1)) for x in (logits, other))
    assert torch.equal(a, b)


def test_ties_go_to_the_most_recent_token():
    selector = SparseWindow(0.4)
    history = selector.history(1)
    rows = torch.zeros(1, 1, 10, 10)
    rows[..., 2] = 1.0
    history.observe(rows, tokens=10)
    assert selector.select(history).tolist() == [[[2, 7, 8, 9]]]
    oracle = OracleTopK(0.4)
    history = oracle.history(1)
    history.observe(rows, tokens=10)
    assert oracle.select(history, torch.ones(1, 1, 10)).tolist() == [[[6, 7, 8, 9]]]


def test_a_token_out_of_the_window_of_rows_has_exactly_no_sum():
    selector, logits = SparseWindow(0.2), attention(160, seed=3)
    history = prefilled(logits, selector, 20)
    for _ in sparse_rows(logits, selector, history, 20, 160):
        pass
    assert int((history.sums() == 0).sum()) > 60


def test_fixed_patterns():
    def chosen(selector, n):
        history = selector.history(1)
        history.observe(torch.zeros(1, 1, 1, n), tokens=n)
        return selector.select(history)[0, 0].tolist()

    assert chosen(LocalWindow(0.4), 10) == [6, 7, 8, 9]
    assert chosen(Strided(0.2), 12) == [2, 7]
    assert chosen(Strided(0.8), 10) == [0, 2, 3, 4, 5, 7, 8, 9]
    assert chosen(AttentionSinkWindow(0.5, sinks=2), 12) == [0, 1, 8, 9, 10, 11]
    assert chosen(AttentionSinkWindow(0.2, sinks=4), 10) == [0, 9]


def test_an_evicted_token_never_comes_back():
    selector, logits = HeavyHitter(0.3), attention(60, seed=1, batch=2, groups=2)
    history = prefilled(logits, selector, 10)
    lost = torch.zeros(2, 2, 60, dtype=torch.bool)
    for t, index in zip(range(10, 60), sparse_rows(logits, selector, history, 10, 60), strict=True):
        here = torch.zeros(2, 2, 60, dtype=torch.bool).scatter_(-1, index, True)
        assert not (here & lost).any()
        lost[..., :t] |= ~here[..., :t]
    assert lost.any()


@pytest.mark.parametrize("selector", [SparseWindow(0.4), HeavyHitter(0.4), LocalWindow(0.4), AttentionSinkWindow(0.4),
                                      Strided(0.4), OracleTopK(0.4)])
def test_left_padding_changes_nothing(selector):
    n, upto, pads = 12, 40, [0, 5, 3]
    alone = [attention(upto - p, seed=p) for p in pads]
    batch = torch.full((3, 1, 3, upto, upto), -torch.inf, dtype=torch.float64)
    for b, p in enumerate(pads):
        batch[b, 0, :, p:, p:] = alone[b][0, 0]
    together = list(sparse_rows(batch, selector, prefilled(batch, selector, n, padding=pads), n, upto))
    for b, p in enumerate(pads):
        single = sparse_rows(alone[b], selector, prefilled(alone[b], selector, n - p), n - p, upto - p)
        for index, full in zip(single, together, strict=True):
            row = full[b, 0]
            assert torch.equal(row[row >= 0] - p, index[0, 0])
            assert (row[index.shape[-1]:] == -1).all()


@settings(max_examples=8)
@given(st.integers(1, 20), st.integers(0, 50))
def test_a_cropped_history_goes_on_as_if_the_queries_had_never_been(back, seed):
    selector, logits = SparseWindow(0.4), attention(80, seed=seed)
    history = prefilled(logits, selector, 20)
    kept = list(sparse_rows(logits, selector, history, 20, 80))
    history.crop(80 - back)
    again = list(sparse_rows(logits, selector, history, 80 - back, 80))
    assert all(torch.equal(a, b) for a, b in zip(kept[60 - back:], again, strict=True))


def test_sequences_can_be_chosen_and_repeated():
    selector, logits = SparseWindow(0.3), attention(30, batch=3, seed=2)
    history = prefilled(logits, selector, 15, padding=[0, 2, 4])
    expected = list(sparse_rows(logits, selector, prefilled(logits, selector, 15, padding=[0, 2, 4]), 15, 30))
    history.select_batch([2, 0, 2])
    for got, full in zip(sparse_rows(logits[[2, 0, 2]], selector, history, 15, 30), expected, strict=True):
        for row, member in zip(got, (2, 0, 2), strict=True):
            assert torch.equal(row[row >= 0], full[member][full[member] >= 0])


def test_the_history_keeps_only_the_rows_of_the_window():
    selector, logits = SparseWindow(0.1), attention(200, seed=1)
    history = prefilled(logits, selector, 10)
    for _ in sparse_rows(logits, selector, history, 10, 200):
        pass
    dense_rows = 200 * 200 * 8
    assert history.nbytes() < dense_rows / 4


def test_weights_without_a_position_count_for_nothing():
    history = SparseWindow(1.0).history(1)
    history.observe(torch.ones(1, 1, 1, 3), torch.tensor([[[0, -1, -1]]]))
    assert history.sums().tolist() == [[[1.0]]]


def test_a_rule_has_a_json_form():
    for selector in (SparseWindow(0.2, head_shared=False), AttentionSinkWindow(0.5, sinks=2), HeavyHitter(1.0)):
        assert TokenSelector.from_dict(selector.to_dict()) == selector


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "message"), [
    (lambda: SparseWindow(0.0), r"r must lie in \(0, 1\], got 0.0"),
    (lambda: LocalWindow(1.2), r"r must lie in \(0, 1\], got 1.2"),
    (lambda: AttentionSinkWindow(0.5, sinks=-1), "sinks must be at least 0"),
    (lambda: SparseWindow(0.5).history(0), "batch must be at least 1"),
    (lambda: SparseWindow(0.5).history(2, padding=[1]), "one entry for each of 2 sequences"),
    (lambda: SparseWindow(0.5).select(SparseWindow(0.5).history(1), torch.ones(1, 1, 0)), "current must be None"),
    (lambda: OracleTopK(0.5).select(OracleTopK(0.5).history(1)), "current must be the weights"),
    (lambda: OracleTopK(0.5).select(OracleTopK(0.5).history(1), torch.ones(1, 1, 3)), "current must have shape"),
    (lambda: SparseWindow(0.5).history(1).observe(torch.ones(2, 1, 1, 1)), "weights must have shape"),
    (lambda: SparseWindow(0.5).history(1).observe(torch.ones(1, 1, 1, 3)), "must have 1 columns"),
    (lambda: SparseWindow(0.5).history(1).observe(torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 3, dtype=torch.long)),
     "index must have shape"),
    (lambda: SparseWindow(1.0).history(1).observe(torch.ones(1, 1, 1, 8), tokens=8), "newest 4 queries, got 1"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.public_door
def test_a_ratio_must_be_a_number():
    with pytest.raises(TypeError, match="r must be a number, got str"):
        SparseWindow("0.5")


def test_what_was_evicted_cannot_be_cropped_back():
    history = prefilled(attention(10), HeavyHitter(0.4), 10)
    with pytest.raises(ValueError, match="evicted for good"):
        history.crop(5)
    assert history.tokens == 10


def test_rows_that_are_gone_count_for_nothing_after_a_long_crop():
    selector, logits = SparseWindow(0.1), attention(60)
    history = prefilled(logits, selector, 5)
    for _ in sparse_rows(logits, selector, history, 5, 60):
        pass
    history.crop(5)
    assert not history.sums().any()
    assert selector.select(history).tolist() == [[[3, 4]]]
