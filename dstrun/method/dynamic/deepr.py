"""Deep rewiring (Bellec et al. 2018): a random walk of weights with fixed signs; a sign change prunes.

Layers are looked at as one: values, signs and noise of all are one tensor, layer after layer, and positions go on
counting from layer to layer. All but the values is on the CPU; a GPU is waited for once a step, to read their signs.

Shape letters: A active connections of all layers together, K grown in one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, OneOf, Share, option
from dstrun.layer.criterion import Cost
from dstrun.layer.selection import highest
from dstrun.layer.topology import inactive
from dstrun.method.dynamic.exchange import exchanged
from dstrun.method.dynamic.replacement import Replacement, choose
from dstrun.method.dynamic.stages import check_stages, stage
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.update import LayerUpdate, ProductCounts, Update
from dstrun.schedule.interval import shortened
from dstrun.system.lazy import np, torch
from dstrun.system.stream import generator
from dstrun.system.transfer import sent

if TYPE_CHECKING:
    from torch import Tensor

NOISE_RATE = 0.01
"""eta in the noise on gradients: a constant in the code of Mostafa and Wang 2019."""


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
    the topology is fixed, without noise, l1 or a constraint on signs. Layers that start dense are trained as usual.

    Replaced connections are reported every ``recipe_report_steps`` steps in a run of ``recipe_steps``; in a shorter run
    the interval is shortened in proportion.
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

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the reports; a layer's active connections stay as many (with ``scope=global``: all layers')."""
        before = 0
        for step in [*self.reports(total), total]:
            yield step - before, ProductCounts.of(counts)
            before = step


class DeepRewiring(Procedure):
    """Rewires after every step of the optimizer; ``DeepR`` says what its settings mean.

    Attributes:
        layers: those that are rewired; the others start dense.
        replaced: connections of each layer, dense ones too, that went and that came since the last report.
    """

    def __init__(self, setting: Setting, option: DeepR) -> None:
        self.setting, self.option = setting, option
        self.last, self.reports = option.last(setting.total_steps), set(option.reports(setting.total_steps))
        self.indices = [i for i, layer in enumerate(setting.layers) if layer.count < layer.topology.size]
        self.layers = [setting.layers[i] for i in self.indices]
        self.sizes = [layer.topology.size for layer in self.layers]
        self.starts = [0, *accumulate(self.sizes)][:-1]
        places = range(len(self.layers))
        self.pools = [list(places)] if setting.scope == "global" else [[place] for place in places]
        self._signs = torch.empty(0, dtype=torch.int8)
        if self.layers:
            self._signs = torch.where(self._values() < 0, -1, 1).to(torch.int8).cpu()
        self.replaced = [(0, 0) for _ in setting.layers]

    @property
    def signs(self) -> dict[int, Tensor]:
        """int8 of each layer, in the order of its positions: 1, -1, or 0 where a connection has not moved yet."""
        return dict(zip(self.indices, self._signs.split(self._counts()), strict=True))

    def updates_at(self, step: int) -> bool:
        """Return whether a step reports: every one rewires, up to the last."""
        return step in self.reports

    def after_backward(self, step: int) -> None:
        """Add the L1 term and noise to the gradients."""
        if self.option.noise == "gradients" and step <= self.last and self.layers:
            pull = self._pull(step, self.option.l1, math.sqrt(2 * NOISE_RATE * self._temperature(step)))
            for layer, part in zip(self.layers, pull.split(self._counts()), strict=True):
                layer.add_gradient(part)

    def after_step(self, step: int) -> Update | None:
        """Add the L1 term and noise to the weights, if not to the gradients; then rewire."""
        if step > self.last:
            return None
        if self.layers:
            values = self._values()
            if self.option.noise == "weights":
                rate = self.setting.optimizer.param_groups[0]["lr"]
                values -= self._pull(step, rate * self.option.l1, math.sqrt(2 * rate * self._temperature(step)))
                for layer, part in zip(self.layers, values.split(self._counts()), strict=True):
                    layer.set_values(part)
            self._replace(step, values)
        return self._report(step) if step in self.reports else None

    def state(self) -> dict[str, Any]:
        """Return the signs, and what has not been reported."""
        return {"signs": self.signs, "replaced": list(self.replaced)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's signs."""
        if self.layers:
            self._signs = torch.cat([state["signs"][i] for i in self.indices]).cpu()
        self.replaced = [(pruned, grown) for pruned, grown in state["replaced"]]

    def _temperature(self, step: int) -> float:
        return self.option.temperature(step, self.setting.total_steps)

    def _counts(self) -> list[int]:
        return [layer.count for layer in self.layers]

    def _values(self) -> Tensor:
        return torch.cat([layer.values() for layer in self.layers])

    def _pull(self, step: int, l1: float, spread: float) -> Tensor:
        """Return s l1 + spread nu on the layers' device: (A,), nu drawn for each layer by itself."""
        weight = self.layers[0].weight
        pull = l1 * self._signs.to(weight.dtype)
        if spread:
            noise = torch.empty(pull.shape)
            for index, part in zip(self.indices, noise.split(self._counts()), strict=True):
                part.normal_(generator=generator(self.setting.seed, "noise", step, index))
            pull += spread * noise.to(pull.dtype)
        return sent(pull, weight.device)

    def _replace(self, step: int, values: Tensor) -> None:
        """Prune what has the wrong sign, and grow as many at random; one that first moves gets its sign."""
        now = values.sign().to(torch.int8).cpu()
        if self.option.signs == "first":
            self._signs = torch.where(self._signs == 0, now, self._signs)
        pruned, counts = np.flatnonzero((now * self._signs < 0).numpy()), self._counts()
        if not pruned.size:
            return
        lost = np.diff(np.searchsorted(pruned, np.cumsum(counts)), prepend=0).tolist()
        free = [size - count for size, count in zip(self.sizes, counts, strict=True)]
        spared = self._spared(values, counts, lost)
        draws = partial(generator, self.setting.seed, "grow", step)
        self._rewire(step, choose(pruned, lost, spared, free, self.pools, draws))

    def _spared(self, values: Tensor, counts: Sequence[int], lost: Sequence[int]) -> dict[int, int]:
        """Name the connection that starts again at 0 in a layer that would lose all to others: the least wrong one."""
        spared = {}
        for layer in self.pools[0] if len(self.pools[0]) > 1 else ():
            if lost[layer] == counts[layer] > 0:
                first = sum(counts[:layer])
                part = slice(first, first + counts[layer])
                spared[layer] = first + int(highest(values[part] * sent(self._signs[part], values.device), 1))
        return spared

    def _rewire(self, step: int, new: Replacement) -> None:
        """Rewire the layers, and keep signs in the order of their positions."""
        placed = zip(self.layers, self.starts, strict=True)
        active = np.concatenate([layer.topology.positions.numpy() + start for layer, start in placed])
        come = inactive(torch.from_numpy(new.blocked(active)), new.ranks).numpy()
        come = np.sort(np.concatenate([come, active[new.spared]]))
        at = np.searchsorted(np.delete(active, new.pruned), come)
        grown = zip(self.indices, new.grown, strict=True)
        fresh = np.concatenate([self._fresh(step, index, count) for index, count in grown if count])
        self._signs = torch.from_numpy(np.insert(np.delete(self._signs.numpy(), new.pruned), at, fresh))
        outs, news = torch.from_numpy(active[new.pruned]).split(new.lost), torch.from_numpy(come).split(new.grown)
        for place, (layer, start, out, grow) in enumerate(zip(self.layers, self.starts, outs, news, strict=True)):
            if out.numel() or grow.numel():
                layer.rewire(out - start, grow - start)
                gone, come = self.replaced[self.indices[place]]
                went, came = exchanged(out, grow)
                self.replaced[self.indices[place]] = gone + went, come + came

    def _fresh(self, step: int, index: int, count: int) -> Tensor:
        """Draw the signs of grown connections: (K,) int64."""
        if self.option.signs == "first":
            return torch.zeros(count, dtype=torch.int64)
        return 2 * torch.randint(2, (count,), generator=generator(self.setting.seed, "sign", step, index)) - 1

    def _report(self, step: int) -> Update:
        """Report what was replaced since the last report."""
        layers = self.setting.layers
        changes = [
            LayerUpdate.of(layer, pruned, grown) for layer, (pruned, grown) in zip(layers, self.replaced, strict=True)
        ]
        self.replaced = [(0, 0) for _ in layers]
        return Update(step, Cost.NONE, False, 0, changes)
