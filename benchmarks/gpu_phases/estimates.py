"""What was expected of an H100 before anything was measured: from counted kernels and bandwidths, within 40 %."""

from __future__ import annotations

ESTIMATES = {
    "copy": "3000",
    "product/bf16": "800",
    "step/resnet56/tf32/plain": "11-15",
    "step/resnet56/tf32/eager": "11-15",
    "step/resnet56/tf32/graph": "4.7 channels_last",
    "step/resnet56/bf16/graph": "3.0 channels_last",
    "step/vgg16_small/tf32/eager": "4.4",
    "step/vgg16_small/tf32/graph": "0.80 channels_last",
    "step/vgg16_small/bf16/graph": "0.62 channels_last",
    "step/vit/tf32/eager": "5.5",
    "step/vit/tf32/graph": "1.8",
    "step/vit/bf16/graph": "0.86 compiled",
    "kernels/resnet56": "1655",
    "kernels/vgg16_small": "521",
    "kernels/vit": "254",
    "update/set": "50-70",
    "update/rigl": "50-70",
    "update/gse": "50-70",
    "wide/4096/128/masked-bf16": "0.55",
    "wide/4096/128/masked-bf16/peak": "0.8",
    "wide/4096/128/sparse-bf16": "0.30",
    "wide/4096/128/sparse-bf16/peak": "0.04",
    "wide/16384/128/masked-bf16": "8.9",
    "wide/16384/128/masked-bf16/peak": "13",
    "wide/16384/1638/masked-bf16": "8.9",
    "wide/16384/1638/masked-bf16/peak": "13",
    "wide/16384/1638/sparse-bf16": "15",
    "wide/16384/819/sparse-bf16": "7.5",
    "wide/16384/328/sparse-bf16": "3.0",
    "wide/16384/164/sparse-bf16": "1.5",
    "wide/65536/128/sparse-bf16": "4.8",
    "wide/65536/128/sparse-bf16/peak": "0.7",
    "wide/262144/128/sparse-bf16": "19-34",
    "run/vgg16_small": "62",
    "run/resnet56": "372",
}
"""By the name of a row of ``bench.csv`` or its first two parts, in its unit."""


def estimate(name: str) -> str:
    """Return what was expected of a row; empty where nothing was."""
    return ESTIMATES.get(name) or ESTIMATES.get("/".join(name.split("/")[:2]), "")
