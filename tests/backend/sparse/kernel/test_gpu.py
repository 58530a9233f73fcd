from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrun.backend.sparse import kernel
from dstrun.backend.sparse.kernel import reference
from dstrun.layer.geometry import ConvGeometry, LinearGeometry

HERE = Path(__file__).parent
triton = pytest.importorskip("triton", reason="Triton is not installed")
OLD = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9)


@pytest.mark.skipif(OLD, reason="the interpreter of Triton before 3.9 fails with NumPy 2.5")
def test_what_is_computed_by_the_interpreter_is_right() -> None:
    """All cases in one process: Triton reads the variable when it is imported."""
    paths = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    command = [sys.executable, str(HERE / "gpu_case.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


class Somewhere:
    """Activations of a GPU that is not here, of which nothing but their kind is asked."""

    device = torch.device("cuda", 0)

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = dtype, shape

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point


LINEAR = LinearGeometry((2, 3)).as_convolution()
OTHERS = {
    "padded": (dataclasses.replace(LINEAR, padding=(1, 1)), torch.float32, (3, 1, 1, 4)),
    "grouped": (dataclasses.replace(LINEAR, groups=2), torch.float32, (6, 1, 1, 4)),
    "taps": (ConvGeometry((2, 3, 3, 3), 1, (1, 1), (1, 1), (1, 1)), torch.float32, (3, 1, 1, 4)),
    "positions": (LINEAR, torch.float32, (3, 2, 1, 4)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear_layers_are_computed_on_a_gpu(dtype, monkeypatch) -> None:
    monkeypatch.setattr(kernel, "_gpu", lambda: "gpu")
    x: Any = Somewhere(dtype, (3, 1, 1, 4))
    assert kernel.kernel_for(LINEAR, x) == kernel.kernel_for(LINEAR, x, "fast") == "gpu"
    assert kernel.kernel_for(LINEAR, x, "reference") is reference


@pytest.mark.parametrize("asked", [None, "fast"])
@pytest.mark.parametrize("name", OTHERS)
def test_convolutions_are_refused_on_a_gpu_unless_the_reference_is_asked_for(name, asked) -> None:
    geometry, dtype, shape = OTHERS[name]
    x: Any = Somewhere(dtype, shape)
    with pytest.raises(TypeError, match=r"masked ones \(dstrun.backend.masked\) are faster there"):
        kernel.kernel_for(geometry, x, asked)
    assert kernel.kernel_for(geometry, x, "reference") is reference


def test_float64_goes_to_the_reference_on_a_gpu() -> None:
    x: Any = Somewhere(torch.float64, (3, 1, 1, 4))
    assert kernel.kernel_for(LINEAR, x) is reference
    with pytest.raises(TypeError, match=r"in linear layers on a GPU, not torch.float64 on cuda"):
        kernel.kernel_for(LINEAR, x, "fast")


def test_without_triton_a_gpu_is_told(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "dstrun.backend.sparse.kernel.gpu", raising=False)
    monkeypatch.delattr(kernel, "gpu", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match="needs Triton on a GPU"):
        kernel._gpu()


@pytest.mark.gpu
def test_what_a_gpu_computes_is_right() -> None:
    import gpu_case

    failed = {}
    for name, case in gpu_case.CASES.items():
        try:
            case(torch.device("cuda"))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    assert not failed
