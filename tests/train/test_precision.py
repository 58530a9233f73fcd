"""How a GPU multiplies fp32 numbers is set, for convolutions and matrix products alike, and on record."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dstrun.backend.auto import check_kernels
from dstrun.config.composition import compose
from dstrun.layer.geometry import exact
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError, sentence
from dstrun.train import precision

CUDA = torch.device("cuda", 0)
KINDS = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
WORDS = ["model=mlp", "dataset=digits", "epochs=1", "wandb=disabled", "device=cpu"]


def modes() -> list[str]:
    return [kind.fp32_precision for kind in KINDS]


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a GPU that knows TF32, as far as it is asked."""
    before = modes()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    yield
    for kind, mode in zip(KINDS, before, strict=True):
        kind.fp32_precision = mode


@pytest.mark.parametrize(("name", "mode"), [("tf32", "tf32"), ("fp32", "ieee"), ("bf16", "ieee"), ("fp16", "ieee")])
def test_convolutions_and_matrix_products_are_set_alike(name: str, mode: str, ampere: None) -> None:
    precision.set_products(name, CUDA)
    assert modes() == [mode] * 3
    assert precision.products(CUDA) == {"convolution": mode, "matrix": mode}


def test_sums_that_are_drawn_from_are_exact(ampere: None) -> None:
    precision.set_products("tf32", CUDA)
    with exact(CUDA):
        assert precision.products(CUDA) == {"convolution": "ieee", "matrix": "ieee"}
    assert modes() == ["tf32"] * 3


def test_a_tensor_is_laid_out_as_its_weight() -> None:
    """So that a state saved where weights were stored otherwise is one again that lies as they do."""
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    saved = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    found = precision.like(weight, saved)
    assert torch.equal(found, saved)
    assert found.stride() == weight.stride()
    assert found.dtype == saved.dtype
    assert precision.like(weight, found) is found


def test_tf32_is_refused_where_there_is_none(ampere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match="precision=tf32 needs an NVIDIA GPU of Ampere or later, and this run trains on cpu"
    ):
        run(compose([*WORDS, "precision=tf32"]))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "V100")
    with pytest.raises(ConfigError, match="trains on V100"):
        precision.set_products("tf32", CUDA)


def test_it_is_on_record(tmp_path) -> None:
    record = run(compose([*WORDS, f"results={tmp_path}"])).record
    assert record is not None
    assert record["env"]["products"] == {"convolution": "ieee", "matrix": "ieee"}


def test_sparse_convolutions_are_refused_on_a_gpu() -> None:
    both = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Conv2d(1, 1, 1))
    check_kernels(both[:1], "sparse", CUDA)
    check_kernels(both, "sparse", torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"no GPU kernel for convolutions, and the network has a convolution \(1\)"):
        check_kernels(both, "sparse", CUDA)


def test_what_does_not_repeat_says_what_to_do() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    except RuntimeError as error:
        said = sentence(error)
    finally:
        torch.use_deterministic_algorithms(False)
    assert said == "put_ is not deterministic on a GPU: deterministic=false trains with it anyway"
