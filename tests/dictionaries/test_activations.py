"""Reading activations of a module, mixing them in bounded memory, keeping them on disk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsepriors.dictionaries.activations import (
    ActivationBuffer,
    ActivationShards,
    HookPoint,
    MixingBuffer,
    text_positions,
    write_shards,
)


class Pair(nn.Module):
    """Returns a tuple, as blocks of transformers do; its second layer is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Dropout(0.5)
        self.block = nn.Identity()
        self.ran = 0

    def forward(self, x: Tensor) -> Tensor:
        (y, _) = self.block((self.last(self.used(x)), None))
        self.ran += 1
        return y


def test_activations_are_those_of_the_place_and_nothing_after_it_runs() -> None:
    model = Pair().train()
    x = torch.randn(2, 5, 3)
    expected = model.used(x)
    for point in (HookPoint(model, "used"), HookPoint(model, "last", side="input"), HookPoint(model, "last"),
                  HookPoint(model, "block")):
        assert torch.equal(point.read(x), expected)
    assert torch.equal(HookPoint(model, "used").read({"x": x}), expected)
    assert torch.equal(HookPoint(model, "used").read((x,)), expected)
    assert model.ran == 0
    assert all(m.training for m in model.modules())
    assert not model.used._forward_hooks
    half = HookPoint(model.to(torch.bfloat16), "used").read(x.to(torch.bfloat16))
    assert half.dtype == torch.float32
    assert not half.requires_grad


def test_places_that_cannot_be_read_are_named() -> None:
    model = Pair()
    with pytest.raises(ValueError, match="near it: used, unused|near it: unused, used"):
        HookPoint(model, "usedd")
    with pytest.raises(RuntimeError, match="does not come through 'unused'"):
        HookPoint(model, "unused").read(torch.ones(2, 3))
    with pytest.raises(ValueError, match="output of 'used' holds NaN"):
        HookPoint(model, "used").read(torch.full((2, 3), torch.nan))
    counts = nn.Sequential(nn.Flatten(0))
    with pytest.raises(TypeError, match="output of '0' must be a floating point tensor"):
        HookPoint(counts, "0").read(torch.ones(2, 3))
    with pytest.raises(ValueError, match="keep"):
        HookPoint(model, "used").rows(torch.ones(2, 5, 3), lambda x: torch.ones(5, dtype=torch.bool))
    assert not model.used._forward_hooks


def test_text_positions_leave_out_padding_and_the_first_token() -> None:
    ids = torch.arange(8).reshape(2, 4)
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    assert text_positions({"input_ids": ids, "attention_mask": mask}).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert text_positions({"input_ids": ids}).int().tolist() == [[0, 1, 1, 1]] * 2


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 9), st.integers(20, 60), st.sampled_from([0, 0.3, 0.5]))
def test_every_row_is_given_once(sizes: list[int], batch: int, capacity: int, mix: float) -> None:
    rows = torch.arange(float(sum(sizes)))[:, None].expand(-1, 2)
    mixed = MixingBuffer(rows.split(sizes) if sizes else [], batch, capacity, mix=mix,
                         generator=torch.Generator().manual_seed(0))
    given_ = list(mixed)
    assert all(len(b) == batch for b in given_[:-1])
    together = torch.cat(given_)[:, 0] if given_ else torch.zeros(0)
    assert together.sort().values.tolist() == list(range(sum(sizes)))
    again = MixingBuffer(mixed.chunks, batch, capacity, mix=mix, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(given_, again, strict=True))


def test_batches_mix_old_and_new_and_hold_no_more_than_the_capacity() -> None:
    made = []

    def chunks():
        for i in range(50):
            made.append(i)
            yield torch.full((20, 1), float(i))

    ahead = []
    for count, batch in enumerate(MixingBuffer(chunks(), 10, 200, generator=torch.Generator().manual_seed(0))):
        ahead.append(20 * len(made) - 10 * count)
        if count == 15:
            assert len(batch.unique()) > 3
    assert max(ahead) <= 220


def test_a_buffer_streams_from_a_model_and_can_be_iterated_again() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    inputs = [torch.randn(6, 3) for _ in range(5)]
    buffer = ActivationBuffer(model, "0", inputs, batch=4, capacity=16, generator=torch.Generator().manual_seed(0),
                              keep=lambda x: x[:, 0] > -5)
    for _ in range(2):
        rows = torch.cat(list(buffer))
        expected = model[0](torch.cat(inputs)).detach()
        torch.testing.assert_close(rows[rows[:, 0].argsort()], expected[expected[:, 0].argsort()])


@pytest.mark.public_door
def test_shards_are_read_where_they_are_indexed(tmp_path) -> None:
    rows = torch.randn(105, 2, 3)
    folder = write_shards(tmp_path / "acts", rows.split(17), rows=40)
    assert len(list(folder.iterdir())) == 3
    shards = ActivationShards(folder)
    assert shards.shape == (105, 2, 3)
    assert shards.dtype == torch.float32
    index = torch.randperm(105)[:50]
    assert torch.equal(shards[index], rows[index])
    assert torch.equal(shards[30:90:7], rows[30:90:7])
    with pytest.raises(IndexError, match="0 to 104"):
        shards[torch.tensor([105])]
    with pytest.raises(TypeError, match="integers"):
        shards[torch.ones(2)]
    with pytest.raises(FileExistsError):
        write_shards(folder, [rows])


def test_damaged_or_missing_shards_are_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="got 0"):
        ActivationShards(tmp_path)
    folder = write_shards(tmp_path / "acts", torch.randn(30, 3).split(10), rows=10)
    last = folder / "activations-00002.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"00002.safetensors is not a readable"):
        ActivationShards(folder)
    last.write_bytes((write_shards(tmp_path / "b", [torch.randn(3, 4)]) / "activations-00000.safetensors").read_bytes())
    with pytest.raises(ValueError, match="must hold rows"):
        ActivationShards(folder)
    (folder / "activations-00001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="without a gap"):
        ActivationShards(folder)
    with pytest.raises(ValueError, match="at least one row"):
        write_shards(tmp_path / "c", [])


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda g: MixingBuffer([], 0, 4, generator=g), ValueError, "batch"),
    (lambda g: MixingBuffer([], 4, 6, generator=g), ValueError, "capacity must be at least"),
    (lambda g: MixingBuffer([], 1, 6, mix=1.0, generator=g), ValueError, "mix must be below 1"),
    (lambda g: MixingBuffer([], 1, 6, generator=0), TypeError, "generator"),
    (lambda g: list(MixingBuffer([torch.ones(2, 3), torch.ones(2, 4)], 1, 6, generator=g)), ValueError, "chunk 1"),
    (lambda g: list(MixingBuffer([torch.full((2, 3), torch.inf)], 1, 6, generator=g)), ValueError, "chunk 0"),
    (lambda g: HookPoint(nn.Linear(2, 2), ""), ValueError, "name must be"),
    (lambda g: HookPoint(3, "a"), TypeError, "model must be"),
    (lambda g: HookPoint(nn.Sequential(nn.ReLU()), "0", side="outptu"), ValueError, "did you mean 'output'"),
])
def test_bad_arguments_are_named(call, error, words, generator) -> None:
    with pytest.raises(error, match=words):
        call(generator)


def test_chunks_of_shards_must_fit(tmp_path) -> None:
    with pytest.raises(ValueError, match="chunk 1"):
        write_shards(tmp_path, [torch.ones(2, 3), torch.ones(2, 4)])
