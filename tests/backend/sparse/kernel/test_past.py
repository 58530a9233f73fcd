"""Large outputs are written past the caches: where they begin on a cache line and where not, they are the same bits."""

import numpy as np
import pytest
import torch
from test_linear import layer

from dstrun.backend.sparse.kernel.call import array
from dstrun.backend.sparse.kernel.fast import NO_BIAS
from dstrun.backend.sparse.kernel.layer_norm import layer_normalize, layer_normalize_backward
from dstrun.backend.sparse.kernel.layout import transpose_planes
from dstrun.backend.sparse.kernel.linear import multiply
from dstrun.backend.sparse.kernel.simd import LINE, PAST, goes_past


def twins(size: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays that are large, one that begins where a cache line does and one that does not."""
    made = []
    for shift in (0, 4):
        room = np.full(size + 2 * LINE, 7, dtype)
        start = (-room.ctypes.data % LINE + shift) // room.itemsize
        made.append(room[start : start + size])
    assert made[0].nbytes > PAST
    assert [goes_past(one, LINE) for one in made] == [True, False]
    return made[0], made[1]


@pytest.mark.parametrize("lanes", [2048, 2064, 2050])  # only whole tiles go past, on rows that begin with a line
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_many_lanes(lanes: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    outputs, inputs = 1100, 24
    _, pattern, weight = layer(outputs, inputs, 1, 0.5)
    x = torch.randn(inputs, lanes).to(dtype)
    connections = tuple(array(tensor) for tensor in (pattern.rows, pattern.inputs, weight))
    targets = twins(outputs * lanes, np.float32 if dtype == torch.float32 else np.uint16)
    for target in targets:
        multiply(connections, NO_BIAS, array(x), target, (inputs, outputs, lanes), 2)
    assert np.array_equal(*targets)
    dense = torch.zeros(outputs, inputs)
    dense[torch.repeat_interleave(torch.arange(outputs), pattern.rows.long().diff()), pattern.inputs.long()] = weight
    made = torch.from_numpy(targets[0].view(np.int16)).view(torch.bfloat16) if dtype != torch.float32 else targets[0]
    torch.testing.assert_close(torch.as_tensor(made).float(), (dense @ x.float()).to(dtype).float().flatten())


@pytest.mark.parametrize(("rows", "columns"), [(1024, 1040), (1030, 1040)])
def test_transposes(rows: int, columns: int) -> None:
    source = np.arange(rows * columns, dtype=np.float32)
    targets = twins(rows * columns)
    for target in targets:
        transpose_planes(source, target, (1, rows, columns), (0, columns, 0, rows))
        assert np.array_equal(target.reshape(columns, rows), source.reshape(rows, columns).T)


@pytest.mark.parametrize("lanes", [4096, 4100])
def test_layer_normalization(lanes: int) -> None:
    rng = np.random.default_rng(0)
    features = 300
    x, delta = (rng.standard_normal(features * lanes, np.float32) for _ in range(2))
    weight, bias = (rng.standard_normal(features, np.float32) for _ in range(2))
    y, dx, partial = twins(x.size), twins(x.size), np.empty(2 * 64 * features, np.float32)
    for i in range(2):
        layer_normalize(x, weight, bias, 1e-5, y[i], 2)
        layer_normalize_backward(x, weight, 1e-5, delta, dx[i], partial, 2)
    assert np.array_equal(*y)
    assert np.array_equal(*dx)
    dense = torch.from_numpy(x.reshape(features, lanes)).T.requires_grad_()
    result = torch.nn.functional.layer_norm(dense, (features,), torch.from_numpy(weight), torch.from_numpy(bias))
    result.backward(torch.from_numpy(delta.reshape(features, lanes)).T)
    assert dense.grad is not None
    torch.testing.assert_close(torch.from_numpy(y[0]), result.detach().T.flatten(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(dx[0]), dense.grad.T.flatten(), atol=1e-5, rtol=1e-4)
