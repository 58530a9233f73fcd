"""Prune small weights, now and then another: a criterion, which is written for dstrun."""

from typing import Annotated, ClassVar

from dstrun.config.option import AtLeast, option


@option
class Noisy:
    """Score a weight by its magnitude times a random factor exp(noise * z), z normal; the lowest go."""

    noise: Annotated[float, AtLeast(0)] = 0.5

    needs_gradient: ClassVar[bool] = False

    def score(self, layer, generator):
        """Return a score for each active connection, (A,)."""
        import torch  # here, so that settings are checked without it

        factor = (self.noise * torch.randn(layer.count, generator=generator)).exp()
        return layer.values().abs() * factor.to(layer.values().device)
