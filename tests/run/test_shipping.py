"""Runs as files and modules, read with dstrun and without."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import fork_server
import pytest
import torch
from small_run import SMALL

import dstrun
from dstrun.backend.sparse.layer import Linear
from dstrun.cli.main import main
from dstrun.config.composition import compose
from dstrun.run import shipping
from dstrun.run.lifecycle import run
from dstrun.system.trouble import ConfigError

DOCS = Path(__file__).parents[2] / "docs"
WORDS = [*SMALL, "model.hidden=[1024,512]", "sparsity=0.95", "method=rigl", "epochs=1", "threads=1"]
READER = """
import torch
from torch import nn
state = torch.load("net.pt", weights_only=True)["state_dict"]
model = nn.Sequential()
for name, layer in (
    ("flatten", nn.Flatten()), ("fc1", nn.Linear(64, 1024)), ("relu1", nn.ReLU()), ("fc2", nn.Linear(1024, 512)),
    ("relu2", nn.ReLU()), ("fc3", nn.Linear(512, 10)),
):
    model.add_module(name, layer)
model.load_state_dict(state)
torch.save(model(torch.load("x.pt")), "y.pt")
import sys
assert "dstrun" not in sys.modules
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished run of each backend below ``results``; the outcome of the masked one."""
    folder = tmp_path_factory.mktemp("shipped")
    outcomes = [run(compose([*WORDS, f"results={folder}/results", f"backend={b}"])) for b in ("sparse", "masked")]
    return folder, *(outcome.folder for outcome in outcomes)


@pytest.fixture(autouse=True)
def _there(trained, monkeypatch) -> None:
    monkeypatch.chdir(trained[0])


def images():
    return torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_process_without_dstrun_computes_the_same(trained):
    folder, sparse, _ = trained
    assert main(["weights", str(sparse.path), "--out", "net.pt"]) == 0
    torch.save(images(), "x.pt")
    (folder / "reader.py").write_text(READER)
    fork_server.run([sys.executable, str(folder / "reader.py")], check=True, cwd=folder)
    with torch.no_grad():
        torch.testing.assert_close(torch.load("y.pt"), dstrun.load(sparse.id)(images()), rtol=1e-5, atol=1e-5)


def test_the_example_of_the_page_reads_csr(trained, capsys):
    _, _, masked = trained
    pytest.importorskip("safetensors")
    assert main(["weights", masked.id, "--out", "net.safetensors", "--format", "csr"]) == 0
    size = int(re.search(r"([\d,]+) bytes, (0\.\d+) x", capsys.readouterr().out)[1].replace(",", ""))
    parameters = masked.record()["parameters"]["dense"]
    assert size == Path("net.safetensors").stat().st_size <= 0.15 * 4 * parameters
    code = next(
        part
        for part in re.findall(r"```python\n(.*?)```", (DOCS / "weights.md").read_text(), re.DOTALL)
        if "safe_open" in part
    )
    exec(code, found := {})
    expected = dstrun.load(masked.id, "masked").state_dict()
    assert found["state"].keys() == expected.keys()
    assert all(torch.equal(torch.from_numpy(found["state"][key]), value) for key, value in expected.items())
    assert found["about"]["facts"] == {
        "image": [1, 8, 8],
        "classes": 10,
        "names": None,
        "mean": [0.3046],
        "std": [0.3754],
    }
    assert found["about"]["record"]["id"] == masked.id


def test_either_backend_whatever_the_run_had(trained):
    _, sparse, masked = trained
    with torch.no_grad():
        for folder, kind in ((sparse, Linear), (masked, torch.nn.Linear)):
            own, other = (
                dstrun.load(folder.path),
                dstrun.load(str(folder.path), "masked" if kind is Linear else "sparse"),
            )
            assert type(own.fc1) is kind is not type(other.fc1)
            assert not own.training
            torch.testing.assert_close(own(images()), other(images()), rtol=1e-5, atol=1e-5)


def test_loading_moves_no_generator_and_prints_nothing(trained, capfd):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.inference_mode():
        dstrun.load(trained[1].id)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


def test_attention_of_pytorch_gets_its_own_names_back(trained):
    """A network of a user's own: its file is loaded by the module as PyTorch has it."""
    sys.path.append(str(trained[0]))
    (trained[0] / "attending.py").write_text(
        "from dstrun.config.option import option\n"
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)\n"
        "        self.head = nn.Linear(8, classes)\n\n"
        "    def forward(self, x):\n"
        "        return self.head(self.block(x[:, 0]).mean(1))\n\n\n"
        "@option\n"
        "class Attending:\n"
        "    def build(self, image, classes):\n"
        "        return Net(classes)\n"
    )
    (trained[0] / "mine" / "model").mkdir(parents=True)
    (trained[0] / "mine" / "model" / "attending.yaml").write_text("_target_: attending.Attending\n")
    words = ["model=attending", *WORDS[1:3], "sparsity=0.5", "epochs=1", "method=gmp", f"results={trained[0]}/results"]
    outcome = run(compose(words, ["mine"]))
    folder = str(outcome.folder.path)
    import attending

    for name, form in (("a.safetensors", "dense"), ("b.safetensors", "csr")):
        assert main(["weights", folder, "--out", name, "--format", form]) == 0
    plain = attending.Net(10).eval()
    from safetensors.torch import load_file

    plain.load_state_dict(load_file("a.safetensors"))
    with torch.no_grad():
        for source in (folder, "a.safetensors", "b.safetensors"):
            torch.testing.assert_close(dstrun.load(source)(images()), plain(images()), rtol=1e-5, atol=1e-5)
    (trained[0] / "attending.py").write_text((trained[0] / "attending.py").read_text() + "\n")
    with pytest.raises(ConfigError, match="your own attending, whose code has changed since"):
        dstrun.load("a.safetensors")


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_damaged_file_is_refused(trained, form, kind):
    path = Path(f"damaged.{kind}")
    assert main(["weights", trained[1].id, "--out", str(path), "--format", form]) == 0
    data = bytearray(path.read_bytes())
    for end in (len(data) // 2, 40, 0):
        path.write_bytes(data[:end])
        with pytest.raises(ConfigError, match=f"damaged.{kind} is damaged, or not a file of dstrun weights"):
            dstrun.load(path)
    data[-3000 if kind == "pt" else -5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"damaged.{kind} is damaged"):
        dstrun.load(path)


def test_positions_outside_the_weight_are_refused(trained):
    net = shipping.of_run(shipping.find(trained[1].id))
    tensors, shapes = shipping._compressed(net.weights)
    tensors["fc1.weight.columns"] = tensors["fc1.weight.columns"] + 64
    with pytest.raises(ValueError, match=r"fc1\.weight has positions outside"):
        shipping._from_compressed(net.blueprint, tensors, shapes)


def test_other_weights_than_the_record_has_are_refused(trained):
    _, sparse, _ = trained
    state = torch.load(sparse.checkpoint, weights_only=True)
    whole = sparse.checkpoint.read_bytes()
    try:
        state["model"]["fc3.bias"][0] += 1
        torch.save(state, sparse.checkpoint)
        with pytest.raises(ConfigError, match=r"checkpoint.pt has other weights than those of the record"):
            dstrun.load(sparse.id)
        sparse.checkpoint.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ConfigError, match=r"checkpoint.pt is damaged: the weights of this run are lost"):
            dstrun.load(sparse.id)
        sparse.checkpoint.unlink()
        with pytest.raises(ConfigError, match=r"checkpoint.pt is missing: the weights of this run were not kept"):
            dstrun.load(sparse.id)
    finally:
        sparse.checkpoint.write_bytes(whole)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "net.zip"], "--out net.zip must end in .safetensors"),
        (["--out", "nowhere/net.pt"], "--out nowhere/net.pt cannot be written: there is no nowhere"),
        (["--out", "net.pt", "--format", "crs"], "--format crs is not known: choose dense, csr (did you mean csr?)"),
        ([], "weights needs --out FILE; dstrun weights --help says more"),
    ],
)
def test_wrong_words_end_in_a_sentence(trained, capsys, words, sentence):
    assert main(["weights", trained[1].id, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_without_safetensors_it_says_what_to_do(trained, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert main(["weights", trained[1].id, "--out", "net.safetensors"]) == 2
    assert "safetensors is not installed: pip install 'dstrun[export]'" in capsys.readouterr().err


def test_the_file_says_which_network_it_is_of(trained):
    assert main(["weights", trained[2].id, "--out", "net.pt", "--format", "csr"]) == 0
    about = json.loads(torch.load("net.pt", weights_only=True)["dstrun"])
    assert about["network"] == {"_target_": "dstrun.model.mlp.MLP", "hidden": [1024, 512], "width": 1.0}
    with pytest.raises(ConfigError, match="backend=spars is not known: choose masked, sparse"):
        dstrun.load("net.pt", "spars")
    with pytest.raises(ConfigError, match="device=gpu is not known: choose cpu, cuda or mps"):
        dstrun.load("net.pt", device="gpu")


def test_onnx_runtime_computes_the_same_for_any_batch(trained):
    runtime = pytest.importorskip("onnxruntime")
    conv = run(
        compose(
            [*SMALL, "model=resnet20", "model.width=0.25", "epochs=1", "threads=1", f"results={trained[0]}/results"]
        )
    )
    assert main(["weights", str(conv.folder.path), "--out", "net.onnx"]) == 0
    session = runtime.InferenceSession("net.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["dstrun"])
    assert about["record"]["id"] == conv.folder.id
    model = dstrun.load(str(conv.folder.path))
    for x in (images(), images()[:1]):
        with torch.no_grad():
            expected = model(x)
        (found,) = session.run(None, {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5)


def test_onnx_is_dense_and_for_others(trained, capsys):
    assert main(["weights", trained[1].id, "--out", "net.onnx", "--format", "csr"]) == 2
    assert "--format csr makes no sense with .onnx" in capsys.readouterr().err
    Path("some.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"some.onnx is for other runtimes: load the run"):
        dstrun.load("some.onnx")
