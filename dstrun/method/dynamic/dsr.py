"""Dynamic sparse reparameterization (Mostafa and Wang 2019): one threshold prunes, layers trade connections.

Shape letters: A active connections of a layer, K pruned in all layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from dstrun.allocation.apportion import largest_remainder
from dstrun.config.option import Above, AtLeast, Share, Within, option
from dstrun.layer.criterion import Cost
from dstrun.layer.interface import SparseLayer
from dstrun.layer.selection import highest
from dstrun.method.dynamic.drawing import barred, draw
from dstrun.method.dynamic.exchange import exchanged
from dstrun.method.dynamic.stages import check_stages, stage
from dstrun.method.interface import Method
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.update import LayerUpdate, ProductCounts, Update
from dstrun.schedule.interval import shortened
from dstrun.system.stream import generator
from dstrun.system.transfer import fetched

if TYPE_CHECKING:
    from torch import Tensor


@option
class DSR(Method):
    """Prune every weight below a global threshold H; regrow as many, in proportion to each layer's survivors.

    Every P steps, P being the stage's of ``periods``, each layer loses its active weights with |w| < H (Algorithm 1),
    but never its last. All K of them grow again at value 0, at random within a layer, K l / sum(l) in a layer with l
    survivors. Then H halves where K > (1 + tolerance) N_p and doubles where K < (1 - tolerance) N_p. N_p is ``target``
    times the active connections, or ``target_count``.

    ``period_changes`` and ``end`` are shares of training. A run shorter than ``recipe_steps`` shortens P in proportion.
    Layers that start dense stay dense.
    """

    threshold: Annotated[float, Above(0)] = 1e-3
    tolerance: Annotated[float, Within(0, 1, high_open=True)] = 0.1
    target: Annotated[float, Within(0, 1, low_open=True)] = 0.138
    target_count: Annotated[int, AtLeast(1)] | None = None
    periods: tuple[Annotated[int, AtLeast(1)], ...] = (100, 200, 400, 800)
    period_changes: tuple[Share, ...] = (0.125, 0.4, 0.7)
    end: Share = 0.95
    recipe_steps: Annotated[int, AtLeast(1)] = 100000

    why: ClassVar[str] = "which prunes by one threshold and regrows at random where most connections survive"
    scopes: ClassVar[tuple[str, ...]] = ("global",)
    grows_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_stages("method.periods", self.periods, "method.period_changes", self.period_changes)

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        return {"target"} if self.target_count is not None else set()

    def procedure(self, setting: Setting) -> Procedure:
        """Start reallocating."""
        return Reallocation(setting, self)

    def steps(self, total: int) -> list[int]:
        """List the steps, counted from 1, at which a run of ``total`` steps reallocates."""
        found, last, step = [], round(self.end * total), 0
        while True:
            period = self.periods[stage(self.period_changes, step + 1, total)]
            step += shortened(period, self.recipe_steps, total, last)
            if step > last:
                return found
            found.append(step)

    def wanted(self, active: int) -> int:
        """Return N_p, how many of the active connections an update shall prune."""
        return self.target_count or max(1, round(self.target * active))

    def planned_phases(
        self, sizes: Sequence[int], counts: Sequence[int], schedule: Any, total: int
    ) -> Iterator[tuple[int, ProductCounts]]:
        """Predict the updates; where they move connections to only the weights know, so costs are the start's."""
        before = 0
        for step in [*self.steps(total), total]:
            yield step - before, ProductCounts.of(counts)
            before = step


class Reallocation(Procedure):
    """Prunes and grows after the optimizer's step; ``DSR`` says what its settings mean."""

    def __init__(self, setting: Setting, option: DSR) -> None:
        self.setting, self.option = setting, option
        self.threshold = option.threshold
        self.steps = set(option.steps(setting.total_steps))
        self.indices = [i for i, layer in enumerate(setting.layers) if layer.count < layer.topology.size]

    def updates_at(self, step: int) -> bool:
        """Return whether connections are reallocated at a step."""
        return step in self.steps

    def after_step(self, step: int) -> Update | None:
        """Prune below the threshold, regrow, and move the threshold."""
        if step not in self.steps:
            return None
        layers = [self.setting.layers[i] for i in self.indices]
        active = [layer.topology.positions for layer in layers]
        small = fetched([below(layer, self.threshold) for layer in layers])
        pruned = [positions[mask] for positions, mask in zip(active, small, strict=True)]
        count = sum(p.numel() for p in pruned)
        changes = dict(zip(self.indices, self._reallocate(step, layers, active, pruned, count), strict=True))
        self._adjust(count, sum(p.numel() for p in active))
        rest = [LayerUpdate.of(layer) for layer in self.setting.layers]
        return Update(step, Cost.NONE, False, 0, [changes.get(i, unchanged) for i, unchanged in enumerate(rest)])

    def state(self) -> dict[str, Any]:
        """Return the threshold."""
        return {"threshold": self.threshold}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with a checkpoint's threshold."""
        self.threshold = state["threshold"]

    def _reallocate(
        self, step: int, layers: Sequence[SparseLayer], active: list[Tensor], pruned: list[Tensor], count: int
    ) -> list[LayerUpdate]:
        """Rewire every layer: what was pruned goes, and as many of all layers together come."""
        sizes = [layer.topology.size for layer in layers]
        blocked = barred(active, pruned, sizes, count)
        survivors = [a.numel() - p.numel() for a, p in zip(active, pruned, strict=True)]
        shares = share_out(count, survivors, [n - b.numel() for n, b in zip(sizes, blocked, strict=True)])
        changes = []
        for place, (layer, share, out) in enumerate(zip(layers, shares, pruned, strict=True)):
            draws = generator(self.setting.seed, "grow", step, self.indices[place])
            (new,) = draw([sizes[place]], [blocked[place]], share, draws)
            layer.rewire(out, new)
            changes.append(LayerUpdate.of(layer, *exchanged(out, new)))
        return changes

    def _adjust(self, count: int, active: int) -> None:
        wanted = self.option.wanted(active)
        if count > (1 + self.option.tolerance) * wanted:
            self.threshold /= 2
        elif count < (1 - self.option.tolerance) * wanted:
            self.threshold *= 2


def below(layer: SparseLayer, threshold: float) -> Tensor:
    """Return which weights are smaller than the threshold, (A,) bool; never the largest."""
    magnitudes = layer.values().abs()
    return (magnitudes < threshold).index_fill_(0, highest(magnitudes, 1), False)


def share_out(count: int, weights: Sequence[int], room: Sequence[int]) -> list[int]:
    """Share a number out in proportion, exactly, with no share above its room.

    What does not fit goes to the others in proportion; shares are then rounded by largest remainder, ties to the
    earlier.

    Args:
        count: shared out, at most the sum of ``room``.
        weights: what a share is proportional to, positive.
        room: the most that each can take.
    """
    shares = [0] * len(room)
    open_ = list(range(len(room)))
    while True:
        total = sum(weights[i] for i in open_)
        exact = {i: Fraction(count * weights[i], total) for i in open_}
        full = [i for i in open_ if exact[i] >= room[i]]
        if not full:
            break
        for i in full:
            shares[i] = room[i]
            count -= room[i]
        open_ = [i for i in open_ if i not in full]
    for i, share in zip(open_, largest_remainder([exact[i] for i in open_], count), strict=True):
        shares[i] = share
    return shares
