"""Sparse inference beside dense, on tiny networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dstrun.backend.sparse.layer import Sparse
from dstrun.bench import infer
from dstrun.bench.arguments import Infer

TINY = Infer(networks=("64-32",), sparsity=(0.8,), batches=(1, 3), rounds=2)


def test_every_implementation_has_its_turns() -> None:
    pytest.importorskip("onnxruntime")
    (rows,) = infer.measure(TINY)
    assert [(row["batch"], row["implementation"]) for row in rows] == [
        (batch, name) for batch in (1, 3) for name in ("dense", "onnxruntime", "sparse")
    ]
    assert all(row["rounds"] == 2 and row["median"] > 0 and row["network"] == "64-32" for row in rows)
    assert all(row["x_median"] == 1.0 for row in rows if row["implementation"] == "sparse")


@pytest.mark.parametrize("name", ["64-32", "resnet20"])
def test_both_networks_have_the_same_weights(name: str) -> None:
    dense, sparse, shape = infer.pair(name, TINY, 0.8)
    layers = [module for module in sparse.modules() if isinstance(module, Sparse)]
    assert len(layers) == (1 if name == "64-32" else 20)
    assert not any(isinstance(module, Sparse) for module in dense.modules())
    x = torch.randn(2, *shape)
    torch.testing.assert_close(dense(x), sparse(x), rtol=1e-4, atol=1e-5)


def test_what_computes_other_numbers_is_not_timed() -> None:
    dense, _, shape = infer.pair("64-32", TINY, 0.8)
    with pytest.raises(RuntimeError, match="sparse computes different numbers than PyTorch"):
        infer.passes(dense, nn.Linear(64, 32), _Session(dense), torch.randn(2, *shape))


class _Session:
    """What ONNX Runtime would answer."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def run(self, _: None, given: dict) -> list:
        return [self.model(torch.from_numpy(given["images"])).detach().numpy()]
