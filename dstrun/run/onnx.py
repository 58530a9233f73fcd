"""A trained network as an ONNX graph, which other runtimes compute; its weights are dense."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dstrun.run.restore import apart
from dstrun.run.shipping import Network, library, save
from dstrun.system.trouble import ConfigError

INPUT, OUTPUT = "images", "logits"
BYTES = 2 << 30
"""A file of this format is smaller."""


def write(net: Network, path: Path) -> tuple[int, int]:
    """Write a network that maps images (B, C, H, W), normalised, to logits (B, classes), for any B.

    Returns:
        As ``shipping.write``.

    Raises:
        ConfigError: it is too large, cannot be traced or cannot be written, or a library is missing.
    """
    if net.weights.bytes >= BYTES:
        raise ConfigError(f"--out {path}: {net.weights.bytes:,} bytes of weights are more than ONNX takes in one file")
    try:
        with apart():
            model = graph(net.build("masked"), torch.zeros(2, *net.about["facts"]["image"]))
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"--out {path}: PyTorch cannot write this network as ONNX: {reason[:300]}") from error
    entry = model.metadata_props.add()
    entry.key, entry.value = "dstrun", json.dumps(net.about, separators=(",", ":"), allow_nan=False)
    return save(path, model.SerializeToString()), net.weights.bytes


def graph(module: nn.Module, example: torch.Tensor) -> Any:
    """Return the ``onnx.ModelProto`` of a module in evaluation mode, for any batch.

    Args:
        module: of plain layers.
        example: an input of two samples.

    Raises:
        ConfigError: a library is missing.
        OnnxExporterError: it cannot be traced.
    """
    library("onnx")
    library("onnxscript")
    log = logging.getLogger("torch.onnx")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch: Any = {0: torch.export.Dim("batch")}
            made = torch.onnx.export(
                module, (example,), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT],
                dynamic_shapes=(batch,),
            )  # fmt: skip
    finally:
        log.disabled = before
    return made.model_proto  # type: ignore[union-attr]
