"""A trained network as one file that is read without dstrun, and as a module (``docs/weights.md``)."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from dstrun.backend.sparse.pattern import rows_of
from dstrun.config.option import OneOf, check_value, expanded
from dstrun.config.upgrade import upgrade
from dstrun.layer.attention import joined, parted
from dstrun.layer.backend import names
from dstrun.layer.interface import prunable
from dstrun.layer.topology import Topology
from dstrun.record import sealed, valid
from dstrun.report.load import Run
from dstrun.run.blueprint import Blueprint
from dstrun.run.finished import Facts, find, past
from dstrun.run.restore import apart, restore
from dstrun.run.weights import Weights, network, owned, state, taken
from dstrun.system.trouble import ConfigError, why
from dstrun.system.whole import write_atomic
from dstrun.train.checkpoint import digest
from dstrun.train.device import pick_device

VERSION = 1
FORMATS = ("dense", "csr")
SUFFIXES = (".safetensors", ".pt")
PARTS = ("rows", "columns", "values")

Tensors = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Network:
    """A trained network, of whatever it was read from.

    Attributes:
        blueprint: of its experiment.
        weights: of all its parameters and buffers.
        about: what a file says of it besides: ``facts``, ``network``, ``backends``, ``record``.
    """

    blueprint: Blueprint
    weights: Weights
    about: dict[str, Any]

    def build(self, backend: str | None = None, device: str | torch.device = "cpu") -> nn.Module:
        """Build the module on a device, ready for inference; on the run's backends if ``None``."""
        backends = self.about["backends"] if backend is None else dict.fromkeys(self.weights.layers, backend)
        with apart():
            model = network(self.blueprint, self.weights, backends, torch.device(device))
        model.about = self.about  # type: ignore[assignment]
        return model


def load(
    source: str | Path, backend: str | None = None, device: str | torch.device = "cpu", trusted: Collection[str] = ()
) -> nn.Module:
    """Load the network of a finished run, or of a file that ``dstrun weights`` has written, ready for inference.

    Its attribute ``about`` says by what images are normalised and which classes there are (``facts``), and has the
    run's ``record``.

    Args:
        source: a run's folder, its id below ``results`` or the beginning of one; or a file.
        backend: ``masked``, plain PyTorch layers with zeros in them, or ``sparse``; the run's own if ``None``.
        device: where it goes. A layer that has no sparse form there is a plain one.
        trusted: installed packages whose classes a network of your own may name.

    Returns:
        The network, in evaluation mode: images (B, C, H, W), normalised, to logits (B, classes).

    Raises:
        ConfigError: there is no such run or file, or it cannot be used.
    """
    if backend is not None:
        check_value("backend", backend, Annotated[str, OneOf(*names())])
    try:
        pick_device(torch.device(device).type)
    except RuntimeError as error:
        raise ConfigError(f"device={device} is not known: choose cpu, cuda or mps") from error
    return read(source, trusted).build(backend, device)


def read(source: str | Path, trusted: Collection[str] = (), places: Sequence[str] = ()) -> Network:
    """Read a finished run or a file (``load``)."""
    path = Path(expanded(str(source)))
    if path.suffix == ".onnx" and path.is_file():
        raise ConfigError(f"{path} is for other runtimes: load the run, or a .safetensors or .pt file of it")
    if path.suffix in SUFFIXES and (path.is_file() or not path.is_dir()):
        return of_file(path, trusted, places)
    return of_run(find(str(source)), trusted, places)


def of_run(run: Run, trusted: Collection[str] = (), places: Sequence[str] = ()) -> Network:
    """Read a finished run (``finished.find``)."""
    restored = restore(run, trusted=trusted, places=places)
    option, record = restored.blueprint.option, run.record or {}
    settings = dataclasses.asdict(option) if dataclasses.is_dataclass(option) else {}  # type: ignore[arg-type]
    about = {
        "facts": dataclasses.asdict(restored.facts),
        "network": {"_target_": record["config"]["model"]["_target_"], **settings},
        "backends": record.get("backends") or {},
        "record": record,
    }
    return Network(restored.blueprint, taken(restored), about)


def write(net: Network, path: Path, form: str) -> tuple[int, int]:
    """Write a network to a file.

    Args:
        net: the network.
        path: where; its end says which kind of file.
        form: ``dense``, the state of the plain network; or ``csr``, every layer that is not whole as rows, columns and
            values.

    Returns:
        The bytes of the file; those of all numbers as a dense state.

    Raises:
        ConfigError: it cannot be written.
    """
    about: dict[str, Any] = {"format": form, "version": VERSION}
    if form == "dense":
        tensors = joined(net.blueprint.trained.model, state(net.blueprint, net.weights))
    else:
        tensors, about["shapes"] = _compressed(net.weights)
    about |= {"digest": digest(sorted(tensors.items())), **net.about}
    text = json.dumps(about, separators=(",", ":"), allow_nan=False)
    if path.suffix == ".pt":
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, "dstrun": text}, buffer)
        data = buffer.getvalue()
    else:
        apart_in_memory = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        data = library("safetensors.torch").save(apart_in_memory, {"dstrun": text})
    return save(path, data), net.weights.bytes


def save(path: Path, data: bytes) -> int:
    """Write a file; return its bytes.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise ConfigError(f"--out {path} cannot be written: {why(error)}") from error
    return len(data)


def _compressed(weights: Weights) -> tuple[Tensors, dict[str, list[int]]]:
    """Return all entries, the weight of each layer that is not whole as CSR, and the dense shapes of those."""
    found, shapes = dict(weights.rest), {}
    for name, (topology, values) in weights.layers.items():
        if topology.count == topology.size:
            found[f"{name}.weight"] = weights.dense(name)
            continue
        rows, columns = rows_of(topology.positions, topology.shape[0], topology.size // topology.shape[0])
        found |= {f"{name}.weight.{part}": x for part, x in zip(PARTS, (rows, columns, values), strict=True)}
        shapes[f"{name}.weight"] = [*topology.shape]
    return found, shapes


def of_file(path: Path, trusted: Collection[str] = (), places: Sequence[str] = ()) -> Network:
    """Read a file; nothing in it is called, and no class named in it unless a new run might call it.

    Raises:
        ConfigError: it cannot be read, is damaged, or of a network that is not here.
    """
    try:
        tensors, about = _content(path)
        facts, form, said = Facts.read(about["facts"]), about["format"], about["digest"]
        if form not in FORMATS or about["version"] != VERSION:
            raise ConfigError(f"{path} is of version {about['version']} and this reads {VERSION}")
        if digest(sorted(tensors.items())) != said:
            raise ValueError("its numbers differ from those that were written")
        record, backends = about["record"], about["backends"]
        if (fault := valid.fault(record)) is not None:
            raise ValueError(fault)
        upgrade(record["config"], record["choices"])
        with apart():
            blueprint = Blueprint(past(record, facts, trusted, places))
            _ = blueprint.trained
        if form == "dense":
            weights = _from_dense(blueprint, parted(blueprint.trained.model, tensors))
        else:
            weights = _from_compressed(blueprint, tensors, about["shapes"])
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {why(error)}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(
            f"{path} is damaged, or not a file of dstrun weights: {' '.join(str(error).split())}"
        ) from error
    return Network(blueprint, weights, {"facts": about["facts"], "backends": backends, "record": record})


def _content(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read the entries of a file and what it says of them.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else; so may other errors of the libraries say.
    """
    if path.suffix == ".pt":
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found["state_dict"], sealed.parse(found["dstrun"].encode())
    safetensors = library("safetensors")
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("dstrun", "")
            return {name: file.get_tensor(name) for name in file.keys()}, sealed.parse(text.encode())  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error


def _from_dense(blueprint: Blueprint, tensors: Tensors) -> Weights:
    """Split a dense state into layers and the rest: what is not 0 is active."""
    entries = owned(blueprint, {name for name, _ in prunable(blueprint.trained.model)})
    layers = {}
    for owner in {owner: None for owner in entries.values() if owner is not None}:
        weight = tensors[f"{owner}.weight"]
        positions = weight.flatten().nonzero().flatten()
        layers[owner] = Topology(tuple(weight.shape), positions), weight.flatten()[positions]
    return Weights(layers, {key: tensors[key] for key, owner in entries.items() if owner is None})


def _from_compressed(blueprint: Blueprint, tensors: Tensors, shapes: Mapping[str, Sequence[int]]) -> Weights:
    """Put layers together of rows, columns and values.

    Raises:
        ValueError: they are no positions in a weight of this shape.
    """
    layers, used = {}, set()
    for name, module in prunable(blueprint.trained.model):
        key, shape = f"{name}.weight", tuple(module.weight.shape)
        if key not in shapes:
            topology = Topology(shape, torch.arange(module.weight.numel()))
            layers[name] = topology, tensors[key].flatten()
            used.add(key)
            continue
        rows, columns, values = (tensors[f"{key}.{part}"] for part in PARTS)
        used |= {f"{key}.{part}" for part in PARTS}
        counts, width = rows.long().diff(), module.weight.numel() // shape[0]
        whole = tuple(shapes[key]) == shape and len(rows) == shape[0] + 1 and int(rows[0]) == 0
        if not whole or not len(columns) == len(values) == int(rows[-1]) or bool((counts < 0).any()):
            raise ValueError(f"{key} is not of a weight {shape}")
        positions = (torch.arange(shape[0]) * width).repeat_interleave(counts) + columns.long()
        within = len(columns) == 0 or (int(columns.min()) >= 0 and int(columns.max()) < width)
        if not within or bool((positions.diff() <= 0).any()):
            raise ValueError(f"{key} has positions outside a weight {shape}, or one twice")
        layers[name] = Topology(shape, positions), values
    return Weights(layers, {key: tensor for key, tensor in tensors.items() if key not in used})


def library(name: str) -> Any:
    """Import a library that few need.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(f"{package} is not installed: pip install 'dstrun[export]'") from error
