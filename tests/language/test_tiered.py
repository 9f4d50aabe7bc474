"""The two-tier store against plain tensors: same values, exact books, the budget kept."""

import gc
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.language.quantize import quantize_kv
from sparsepriors.language.schedule import Schedule
from sparsepriors.language.tiered import TieredKV

BATCH, HEADS, DIM = 2, 2, 3
ROW = 2 * HEADS * DIM * 4   # bytes of a token of one sequence in float32


class Reference:
    """What the store must give back: plain tensors, whole blocks quantised once."""

    def __init__(self, bits=16, block=4):
        self.bits, self.block, self.sealed = bits, block, 0
        self.kv = torch.zeros(2, BATCH, HEADS, 0, DIM)

    def append(self, key, value):
        self.kv = torch.cat([self.kv, torch.stack([key, value])], dim=3)
        full = self.kv.shape[3] // self.block * self.block
        if self.bits < 16 and full > self.sealed:
            part = slice(self.sealed, full)
            self.kv[:, :, :, part] = quantize_kv(self.kv[:, :, :, part], self.bits, self.block).dequantize()
            self.sealed = full

    def gather(self, index):
        at = index.clamp(min=0)[None, :, None, :, None].expand(2, -1, HEADS, -1, DIM)
        return self.kv.gather(3, at) * (index >= 0)[None, :, None, :, None]


def draw(new, generator):
    return (torch.randn(BATCH, HEADS, new, DIM, generator=generator) for _ in range(2))


def chosen(tokens, count, generator):
    return torch.stack([torch.randperm(tokens, generator=generator)[:count].sort().values for _ in range(BATCH)])


@settings(max_examples=15)
@given(bits=st.sampled_from([16, 8, 4]), slow=st.sampled_from(["ram", "disk"]), room=st.integers(0, 40),
       prompt=st.integers(1, 50), steps=st.integers(0, 30), local=st.integers(1, 3), beta=st.sampled_from([0.0, 0.4]),
       alpha=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 99))
def test_the_store_gives_back_what_a_plain_one_does_and_keeps_its_budget(bits, slow, room, prompt, steps, local, beta,
                                                                         alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    sizer = TieredKV(1, kv_bits=bits, block=4)
    least = max(sizer.minimum_bytes(BATCH, HEADS, DIM, torch.float32, local, n)
                for n in range(prompt, prompt + steps + 1))
    budget = least + room * BATCH * ROW * bits // 32
    store, plain = TieredKV(budget, slow=slow, kv_bits=bits, block=4), Reference(bits)
    original = {}

    def recompute(sequence, token):
        kv = torch.stack([original[int(b), int(t)] for b, t in zip(sequence, token, strict=True)], dim=1)
        return kv[0], kv[1], 0

    for new in (prompt, *[1] * steps):
        key, value = draw(new, generator)
        for b in range(BATCH):
            original |= {(b, store.tokens + i): torch.stack([key[b, :, i], value[b, :, i]]) for i in range(new)}
        store.append(key, value, local=min(local, store.tokens + new))
        plain.append(key, value)
        store.schedule(Schedule(alpha).to_offload(store.tokens), beta, local)
        assert store.fast_nbytes() <= budget
        index = chosen(store.tokens, int(torch.randint(0, store.tokens + 1, (), generator=generator)), generator)
        got, expected = store.gather(index, local=local, recompute=recompute), plain.gather(index)
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a, b)
        assert store.fast_nbytes() <= budget
        assert (store.places()[:, max(0, store.tokens - local):] == 0).all()


def filled(room, tokens, **options):
    generator = torch.Generator().manual_seed(0)
    store = TieredKV(room * BATCH * ROW, **options)
    key, value = draw(tokens, generator)
    store.append(key, value, local=1)
    return store, torch.stack([key, value])


def everyone(*tokens):
    return torch.arange(BATCH).repeat_interleave(len(tokens)), torch.tensor(tokens * BATCH)


def test_a_prompt_that_does_not_fit_leaves_its_oldest_tokens_in_slow_memory():
    store, _ = filled(6, 10)
    assert store.places().tolist() == [[1] * 4 + [0] * 6] * BATCH
    assert (store.traffic.offloaded, store.traffic.offloaded_bytes) == (4 * BATCH, 4 * BATCH * ROW)
    assert store.traffic.loaded == 0


def test_the_books_of_hits_and_loads():
    store, kv = filled(6, 10)
    index = torch.tensor([[0, 8], [9, -1]])
    key, value = store.gather(index, local=1)
    assert (store.traffic.hits, store.traffic.loaded) == (2, 1)
    assert store.traffic.loaded_bytes == ROW
    assert torch.equal(key[0, :, 0], kv[0, 0, :, 0])
    assert torch.equal(value[1, :, 0], kv[1, 1, :, 9])
    assert not key[1, :, 1].any()
    store.gather(index, local=1)   # it stayed in fast memory
    assert (store.traffic.hits, store.traffic.loaded) == (5, 1)


def test_the_token_that_was_not_used_for_the_longest_time_goes_first():
    store, _ = filled(5, 5)
    store.gather(torch.tensor([[0, 1, 2], [0, 1, 2]]), local=1)
    generator = torch.Generator().manual_seed(1)
    store.append(*draw(1, generator), local=1)
    assert store.places().tolist() == [[0, 0, 0, 1, 0, 0]] * BATCH
    store.append(*draw(1, generator), local=1)
    assert store.places().tolist() == [[0, 0, 0, 1, 1, 0, 0]] * BATCH
    store.append(*draw(1, generator), local=1)
    assert store.places().tolist() == [[1, 0, 0, 1, 1, 0, 0, 0]] * BATCH


def test_a_token_is_written_to_slow_memory_once():
    store, _ = filled(5, 8)
    for _ in range(6):
        for token in range(8):
            store.gather(torch.full((BATCH, 1), token), local=1)
    assert store.traffic.offloaded <= 8 * BATCH
    assert store.traffic.loaded > 8 * BATCH


def test_explicit_moves():
    store, kv = filled(6, 6)
    assert store.offload(*everyone(0, 1, 2)) == 3 * BATCH
    assert store.offload(*everyone(1, 2, 3)) == BATCH
    assert not store.places().any()
    assert store.delete(*everyone(0, 1)) == 2 * BATCH
    assert store.delete(*everyone(0, 5)) == 0
    assert store.deleted().tolist() == [[True, True, False, False, False, False]] * BATCH
    for _ in range(3):   # pushes three old tokens out; the deleted ones are lost
        store.append(*draw(1, torch.Generator().manual_seed(1)), local=1)
    assert store.places()[0].tolist() == [2, 2, 1, 0, 0, 0, 0, 0, 0]
    with pytest.raises(RuntimeError, match="2 selected tokens were deleted"):
        store.gather(torch.tensor([[0], [1]]), local=1)
    def again(sequence, token):
        return kv[0][sequence, :, token], kv[1][sequence, :, token], 7

    key, _ = store.gather(torch.tensor([[0], [1]]), local=1, recompute=again)
    assert torch.equal(key[1, :, 0], kv[0, 1, :, 1])
    assert (store.traffic.recomputed, store.traffic.recomputed_bytes) == (2, 7)
    assert store.load(*everyone(2), local=1) == BATCH
    assert store.places()[0, 2] == 0
    assert store.load(*everyone(2), local=1) == 0


def test_the_share_that_must_leave_leaves_oldest_first():
    store, _ = filled(20, 20)
    store.schedule(10, 0.0, 2)
    assert store.traffic.offloaded == 10 * BATCH
    store.schedule(10, 0.3, 2)
    assert store.deleted()[0].nonzero().flatten().tolist() == [0, 1, 2]
    store.schedule(10, 0.3, 2)
    assert store.traffic.deleted == 3 * BATCH
    store.schedule(20, 0.0, 5)   # local tokens never leave
    assert store.traffic.offloaded == 15 * BATCH


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("keep", [1, 5, 8, 11, 13])
def test_a_cropped_store_goes_on(bits, keep):
    generator = torch.Generator().manual_seed(3)
    store, plain = TieredKV(10 * BATCH * ROW + 13 * ROW * BATCH, kv_bits=bits, block=4), Reference(bits)
    key, value = draw(13, generator)
    store.append(key, value, local=1)
    plain.append(key, value)
    store.crop(keep)
    plain.kv, plain.sealed = plain.kv[:, :, :, :keep], min(plain.sealed, keep // 4 * 4)
    for _ in range(9):
        key, value = draw(1, generator)
        store.append(key, value, local=1)
        plain.append(key, value)
    index = torch.arange(keep + 9).expand(BATCH, -1)
    for a, b in zip(store.gather(index, local=1), plain.gather(index), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_file_of_slow_memory_is_removed(tmp_path):
    store, _ = filled(4, 12, slow="disk", folder=tmp_path)
    held = [os.path.join(d, f) for d, _, files in os.walk(tmp_path) for f in files]
    assert len(held) == 1
    assert os.path.getsize(held[0]) == 8 * BATCH * ROW
    del store
    gc.collect()
    assert not any(tmp_path.iterdir())


def test_a_budget_below_the_local_window_is_refused_with_the_least_one():
    store = TieredKV(3 * BATCH * ROW)
    generator = torch.Generator().manual_seed(0)
    least, given = 4 * BATCH * ROW, 3 * BATCH * ROW
    with pytest.raises(ValueError, match=f"at least {least} bytes a layer at 9 tokens, got {given}"):
        store.append(*draw(9, generator), local=4)
    assert store.tokens == 0
    store.append(*draw(9, generator), local=3)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "message"), [
    (lambda: TieredKV(0), "fast_bytes must be at least 1"),
    (lambda: TieredKV(10, slow="tape"), "slow must be one of 'ram', 'disk'"),
    (lambda: TieredKV(10, kv_bits=2), "kv_bits must be 4, 8 or 16, got 2"),
    (lambda: Schedule(alpha=1.5), r"alpha must lie in \[0, 1\], got 1.5"),
    (lambda: Schedule(beta=-0.1), r"beta must lie in \[0, 1\], got -0.1"),
    (lambda: Schedule(p1=5, p2=4), "p2 must be at least p1 = 5, got 4"),
    (lambda: Schedule().phase(-1), "j must be at least 0"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 60))
def test_phases_come_in_order(p1, more, j):
    schedule = Schedule(p1=p1, p2=p1 + more)
    assert schedule.phase(j) in (1, 2, 3)
    assert schedule.phase(j) <= schedule.phase(j + 1)
    assert (schedule.phase(j) == 1) == (j < p1)
    assert (schedule.phase(j) == 3) == (j >= p1 + more)
