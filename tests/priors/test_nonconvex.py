"""Proxes of nonconvex penalties where their formulas cancel."""

import numpy as np
import pytest
import torch

from sparsepriors.priors import LogSum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_sum_is_accurate_far_below_and_above_its_scale(dtype):
    for epsilon in (1e-3, 1.0, 50.0, 1e6):
        r = torch.logspace(-6, 4, 300, dtype=dtype)
        weight, step = 1e-9 * epsilon, 1.5
        t = np.longdouble(step) * np.longdouble(weight)
        exact = r.numpy().astype(np.longdouble)
        for _ in range(60):  # m = r - t / (m + epsilon) contracts: t is far below epsilon^2
            exact = np.maximum(r.numpy().astype(np.longdouble) - t / (exact + np.longdouble(epsilon)), 0)
        u = LogSum(weight, epsilon).prox(r, step)
        torch.testing.assert_close(u.double(), torch.from_numpy(exact.astype(np.float64)),
                                   rtol=8 * torch.finfo(dtype).eps, atol=0)
