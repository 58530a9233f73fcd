"""Forward and backward passes, in the precision, parts and memory formats that a run sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from dstrun.storage.activations import Kept
from dstrun.storage.recompute import Recompute
from dstrun.system.ranks import Passes, Ranks
from dstrun.system.stream import stream
from dstrun.train.device import seed_device
from dstrun.train.precision import Precision

Batch = Callable[[slice], tuple[Tensor, Tensor]]
"""Returns a part of some samples: images and labels."""


class Passing:
    """How a network is passed in training.

    Args:
        loss: ``loss(logits, labels)``, the mean over samples.
        precision: of the products.
        passes: how many a batch takes.
        kept: what is kept of activations.
        recompute: what is computed again in place of being kept.
        ranks: the processes that share a batch.
        device: where the network is.
        seed: of the run.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        precision: Precision,
        passes: Passes,
        kept: Kept,
        recompute: Recompute,
        ranks: Ranks,
        device: torch.device,
        seed: int,
    ) -> None:
        self.loss, self.precision, self.passes, self.kept, self.recompute = loss, precision, passes, kept, recompute
        self.ranks, self.device, self.seed = ranks, device, seed
        self._at = 0, ""
        recompute.context = self._again

    @property
    def plain(self) -> bool:
        """Whether a batch takes a single pass, of which all is kept as PyTorch does."""
        return self.passes.size is None and self.kept.kind == "full" and not self.recompute.chains

    def forward(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, step: int, part: str) -> Tensor:
        """Return the loss of samples.

        Args:
            model: the network, or what is called in its place.
            x: images (B, C, H, W).
            y: labels (B,).
            step: under way.
            part: names these samples within the step; noise is drawn by it.
        """
        self._at = step, part
        with self.precision.autocast():
            with self.kept.forward(step, part), self.recompute.active():
                logits = model(x)
            return self.loss(logits, y)

    def both(
        self,
        model: nn.Module,
        samples: int,
        batch: Batch,
        step: int,
        what: str,
        penalty: Callable[[], Tensor | None] = lambda: None,
    ) -> Tensor:
        """Pass samples forward and backward, in parts where that takes several passes; gradients add up.

        Args:
            model: the network, or what averages its gradients over processes.
            samples: how many there are here.
            batch: gives a part of them.
            step: under way.
            what: names the samples, and the random numbers of dropout.
            penalty: returns what is added to the loss, once; called after the last forward pass.

        Returns:
            The loss, (), without the penalty.
        """
        losses: list[Tensor] = []
        for part in self.passes.over(samples):
            index, several = self.passes.index, self.passes.count > 1
            with nullcontext() if self.passes.last else self.ranks.deferred(model):
                seed_device(self.device, stream(self.seed, what, step, *([index] if several else [])))
                loss = self.forward(model, *batch(part), step, f"{what} {index}")
                if several:
                    loss = loss / self.passes.count
                losses.append(loss.detach().clone())
                more = penalty() if self.passes.last else None
                self.precision.backward(loss if more is None else loss + more)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    @contextmanager
    def summing(self, samples: int) -> Iterator[bool]:
        """Enter a round of passes beforehand, where candidates are drawn from sums that a single pass does not see.

        Yields:
            Whether there is to be such a round over so many samples.
        """
        wanted, self.passes.wanted = self.passes.wanted, False
        self.passes.summing = wanted and self.passes.size is not None and self.passes.size < samples
        try:
            yield self.passes.summing
        finally:
            self.passes.summing = False

    @contextmanager
    def _again(self) -> Iterator[None]:
        """Compute again, in the backward pass, what the last forward pass did not keep."""
        with self.precision.autocast(), self.kept.forward(*self._at):
            yield
