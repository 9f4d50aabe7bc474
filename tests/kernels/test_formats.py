import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.kernels import pack_nm
from sparsepriors.priors import NM


@given(st.sampled_from([(1, 2), (2, 4), (1, 16), (3, 5), (4, 4), (8, 64)]), st.lists(st.integers(1, 3), max_size=2),
       st.integers(1, 4), st.integers(0, 999))
def test_packed_rows_come_back_to_the_bit(nm, batch, groups, seed):
    n, m = nm
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, groups * m, generator=generator).round(decimals=0)   # many zeros, some of them -0.0
    x = torch.where(x == 0, 0.0, x)
    rows = x.reshape(-1, groups * m)
    sparse = NM(n, m, dims=1).project(rows).reshape(x.shape)
    packed = pack_nm(sparse, n, m)
    assert torch.equal(packed.dense(), sparse)
    assert packed.values.shape == packed.index.shape == (*batch, groups * n)
    places = packed.index.unflatten(-1, (-1, n)).long()
    assert (places.diff(dim=-1) > 0).all()
    assert packed.nbytes == packed.values.numel() * 5


def test_values_stand_where_the_index_says():
    packed = pack_nm(torch.tensor([[0.0, 5.0, 0.0, 7.0, 3.0, 0.0, 0.0, 0.0]]), 2, 4)
    assert packed.values.tolist() == [[5.0, 7.0, 3.0, 0.0]]
    assert packed.index.tolist() == [[1, 3, 0, 1]]


@pytest.mark.public_door
@pytest.mark.parametrize(("rows", "n", "m", "message"), [
    (torch.ones(2, 8), 2, 4, r"not 2:4 sparse: group \(0, 0\) has 4 nonzeros"),
    (torch.zeros(2, 6), 2, 4, "multiple of m = 4"),
    (torch.zeros(0), 2, 4, "positive multiple of m = 4"),
    (torch.zeros(512), 2, 512, "m must be from 1 to 256"),
    (torch.zeros(8), 5, 4, "n must be from 1 to 4"),
])
def test_what_cannot_be_packed_is_refused(rows, n, m, message):
    with pytest.raises(ValueError, match=message):
        pack_nm(rows, n, m)
