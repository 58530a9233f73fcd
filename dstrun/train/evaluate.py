"""Accuracy and loss over a held-out split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dstrun.system.ranks import ALONE, Ranks
from dstrun.train.precision import Precision


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: Precision, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Evaluate every image of the split once; each process goes over its own batches.

    Returns:
        ``top1`` and ``top5`` in percent (top-5 counts all classes where there are fewer), ``loss`` the mean
        cross-entropy without label smoothing.
    """
    model.eval()
    found, total = [], 0
    for x, y in batches:
        with precision.autocast():
            logits = model(x)
        logits = logits.float()
        ranked = logits.topk(min(5, logits.shape[1])).indices == y[:, None]
        loss = functional.cross_entropy(logits, y, reduction="sum")
        found.append(torch.stack([ranked[:, 0].sum().double(), ranked.sum().double(), loss.double()]))
        total += len(y)
    sums = torch.stack(found).tolist() if found else []  # once, as reading a number makes a GPU wait
    top1, top5, loss = (sum(column) for column in zip(*sums, strict=True)) if sums else (0, 0, 0.0)
    top1, top5, loss, total = ranks.total([top1, top5, loss, total])
    return {"top1": 100 * top1 / total, "top5": 100 * top5 / total, "loss": loss / total}
