"""GraSP: gradient signal preservation (Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from dstrun.config.option import Above, option
from dstrun.method.at_init.once import PruneOnSamples, Scores, parts, scoring_pass
from dstrun.method.procedure import Setting
from dstrun.system.lazy import torch
from dstrun.system.stream import generator

if TYPE_CHECKING:
    from torch import Tensor

PASSES = 3
"""What a sample costs, in passes forward and backward: one for g, and one differentiated again, for H g."""


@option
class GraSP(PruneOnSamples):
    """Remove the connections of highest S = -w (H g), which reduce the gradient flow (equation 8).

    g is the loss's gradient and H its Hessian, over all prunable weights together; removing w changes g'g by about 2 S.
    So the largest signed w (H g) are kept. Logits are first divided by ``temperature``.

    With ``xavier`` the weights of linear layers are redrawn for scoring (Glorot and Bengio 2010, normal), as in the
    authors' code; training starts from the original ones.
    """

    temperature: Annotated[float, Above(0)] = 200.0
    xavier: bool = False

    def scored_samples(self, classes: int) -> int:
        """Count the samples, each as often as it is passed."""
        return PASSES * super().scored_samples(classes)

    def score(self, setting: Setting) -> Scores:
        """Return w (H g): (N,) of every layer."""
        grad, attention = torch.autograd.grad, torch.nn.attention
        weights = self._weights(setting)
        over = list(weights.values())
        gradient, product = ([torch.zeros_like(w) for w in over] for _ in range(2))
        passed = 0
        plain = attention.sdpa_kernel(attention.SDPBackend.MATH)  # fused attention has no second derivative
        with scoring_pass(setting.model), plain:
            for loss, samples in self._losses(setting, weights):
                add(gradient, grad(loss, over))
                passed += samples
            for loss, _ in self._losses(setting, weights):
                again = grad(loss, over, create_graph=True)
                flow = sum((g * a).sum() for g, a in zip(gradient, again, strict=True))
                add(product, grad(flow, over, materialize_grads=True))  # type: ignore[arg-type]
        scores = [(w * hg).detach().flatten() for w, hg in zip(over, product, strict=True)]
        return scores, PASSES * passed

    def _losses(self, setting: Setting, weights: dict[str, Tensor]) -> Iterator[tuple[Tensor, int]]:
        """Return the loss of each part of the samples, their sum the mean over all, and how many samples it has."""
        for x, y, share in parts(self, setting):
            logits = torch.func.functional_call(setting.model, weights, (x,))
            yield share * setting.loss(logits / self.temperature, y), len(y)

    def _weights(self, setting: Setting) -> dict[str, Tensor]:
        """Name the weights that are scored, one tensor a layer."""
        names = {id(parameter): name for name, parameter in setting.model.named_parameters()}
        weights: dict[str, Tensor] = {names[id(layer.weight)]: layer.weight for layer in setting.layers}
        if self.xavier:
            linear = {id(m.weight) for m in setting.model.modules() if isinstance(m, torch.nn.Linear)}
            for index, (name, weight) in enumerate(weights.items()):
                if id(weight) in linear:
                    drawn = torch.empty(weight.shape)
                    torch.nn.init.xavier_normal_(drawn, generator=generator(setting.seed, "xavier", index))
                    weights[name] = drawn.to(weight).requires_grad_()
        return weights


def add(sums: list[Tensor], terms: tuple[Tensor, ...]) -> None:
    """Add to each sum in place."""
    for total, term in zip(sums, terms, strict=True):
        total += term
