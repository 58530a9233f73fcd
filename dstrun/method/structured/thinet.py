"""ThiNet (Luo et al. 2017): remove channels of a trained network that the next layer misses least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import Above, AtLeast, Share, option
from dstrun.method.procedure import Method, Procedure, Products, Setting

if TYPE_CHECKING:
    from torch import nn


@option
class ThiNet(Method):
    """Train densely; remove channels layer by layer; train ``finetune`` x ``epochs`` more at the last learning rate.

    That is, at the last which is ``finetune_lr`` of the first or more: at almost 0 nothing would be made up for.

    Of ``samples_per_class`` training images a class, ``locations`` outputs of the reader each, the part that every
    channel has in them is recorded; channels are removed one by one so that the sum of squares of what is removed
    grows least (the paper's algorithm 1), and the others are scaled by least squares (equation 7). The same share
    is kept in every layer.
    """

    finetune: Annotated[float, Above(0)] = 0.1
    finetune_lr: Share = 0.01
    samples_per_class: Annotated[int, AtLeast(1)] = 10
    locations: Annotated[int, AtLeast(1)] = 10

    why: ClassVar[str] = "which removes channels, the same share in every layer"
    start: ClassVar[str] = "all"
    dense: ClassVar[str] = "which starts from every connection"
    alone: ClassVar[str] = "which follows channels through the network of a single process"
    exact: ClassVar[bool] = False

    def allocates(self, scope: str) -> bool:
        """Take no allocation: the share of channels sets the layers' counts."""
        return False

    def counts(self, model: nn.Module, budget: int) -> list[int]:
        """Count the weights left by the largest share of channels within the budget.

        Raises:
            ConfigError: one channel of each layer is still more.
        """
        from dstrun.method.structured.channels import pairs, remaining, uniform

        found, _ = pairs(model)
        return remaining(model, found, uniform(model, found, budget, "thinet"))

    def epochs(self, epochs: int, sparsity: float) -> int:
        """Add the fine-tuning, at least one epoch."""
        return epochs + max(1, round(self.finetune * epochs))

    def procedure(self, setting: Setting) -> Procedure:
        """Train, remove, train."""
        from dstrun.method.structured.reconstruction import Reconstruction

        return Reconstruction(setting, self.samples_per_class, self.locations, self.finetune_lr)

    def course(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, epochs: int, sparsity: float, per_epoch: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict the dense training and the fine-tuning."""
        yield epochs * per_epoch, Products.of(sizes)
        yield (self.epochs(epochs, sparsity) - epochs) * per_epoch, Products.of(counts)

    def update_samples(self, classes: int) -> int:
        """Count the one forward pass over the samples as a third of a pass forward and backward."""
        return -(-self.samples_per_class * classes // 3)
