"""Deep rewiring (Bellec et al. 2018): a random walk of weights with fixed signs; who would change it, goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, OneOf, Share, option
from dstrun.method.dynamic.stages import check_stages, shortened, stage
from dstrun.method.procedure import Method, Procedure, Products, Setting


@option
class DeepR(Method):
    """After every step prune the connections whose weight has changed its sign; grow as many at random, at 0.

    An active connection is a size theta >= 0 and a sign s that it keeps: w = s theta. It becomes dormant when theta
    would turn negative (Algorithm 1), and as many dormant ones, at random, become active at theta = 0, with a random
    sign (``signs=random``) or the one in which they first move (``signs=first``).

    theta also feels the L1 term and a random walk. ``noise=weights``, the paper: the step takes eta l1 off theta and
    adds sqrt(2 eta T) nu, eta the learning rate. ``noise=gradients``, the code of Mostafa and Wang 2019, from where
    temperatures and l1 are: the gradient gets s l1 + sqrt(2 x 0.01 T) nu, whatever the learning rate.

    T is the stage's of ``temperatures``; ``temperature_changes`` and ``end`` are shares of training. From ``end`` on
    the topology stays, and there is neither noise nor l1 nor a constraint on signs. Layers that start dense are
    ordinary ones.

    What went and came is reported once in so many steps: ``recipe_report_steps`` of ``recipe_steps``, fewer in a
    shorter run.
    """

    noise: Annotated[str, OneOf("gradients", "weights")] = "gradients"
    signs: Annotated[str, OneOf("random", "first")] = "random"
    l1: Annotated[float, AtLeast(0)] = 1e-5
    temperatures: tuple[Annotated[float, AtLeast(0)], ...] = (1e-5, 1e-8, 1e-12, 1e-15)
    temperature_changes: tuple[Share, ...] = (0.125, 0.4, 0.7)
    end: Share = 0.95
    recipe_report_steps: Annotated[int, AtLeast(1)] = 100
    recipe_steps: Annotated[int, AtLeast(1)] = 100000

    why: ClassVar[str] = "which prunes connections that change their sign and grows others at random, at every step"
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")
    grows_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        changes = "method.temperature_changes"
        check_stages("method.temperatures", self.temperatures, changes, self.temperature_changes)

    def objection(self, config: dict[str, Any]) -> str:
        """Refuse noise on gradients that are not of the size they seem, and on weights that it would not move."""
        if self.noise == "gradients" and config["precision"] == "fp16":
            return (
                "precision=fp16 makes no sense with method.noise=gradients, which would be drowned by the scaled loss: "
                "set precision=bf16 or method.noise=weights"
            )
        if self.noise == "weights" and config["weights"] != "fp32":
            return (
                f"weights={config['weights']} makes no sense with method.noise=weights, which moves weights by less "
                "than 16 bits hold: set weights=fp32 or method.noise=gradients"
            )
        return ""

    def procedure(self, setting: Setting) -> Procedure:
        """Start rewiring."""
        from dstrun.method.dynamic.deep_rewiring import DeepRewiring

        return DeepRewiring(setting, self)

    def last(self, total: int) -> int:
        """Return the last step that rewires, in a run of ``total``."""
        return round(self.end * total)

    def temperature(self, step: int, total: int) -> float:
        """Return T at a step, counted from 1, of ``total``."""
        return self.temperatures[stage(self.temperature_changes, step, total)]

    def reports(self, total: int) -> list[int]:
        """List the steps after which a run of ``total`` reports what it has replaced; the last that rewires is one."""
        last = self.last(total)
        interval = shortened(self.recipe_report_steps, self.recipe_steps, total, last)
        return sorted({*range(interval, last, interval), last} - {0})

    def forecast(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, Products]]:
        """Predict the reports; a layer's active connections stay as many (with ``scope=global``: all layers')."""
        before = 0
        for step in [*self.reports(total), total]:
            yield step - before, Products.of(counts)
            before = step
