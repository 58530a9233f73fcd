"""Dynamic sparse training by composition: at each update prune the worst connections and grow as many others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from dstrun.config.option import AtLeast, OneOf, option
from dstrun.layer.criterion import Cost
from dstrun.method.procedure import Method, Procedure, Setting


@option
class DST(Method):
    """Replace the fraction a_t of the active connections at every update (``schedule`` says when and how many).

    A criterion that needs gradients takes those of the current batch, and the update replaces that batch's step, as in
    RigL and in Algorithm 2 of GSE (``batch=current``). Or it scores ``samples_per_class`` fresh samples of each class
    in one batch (``null``: as many samples as a batch has), and the step is taken besides, as in the code of both
    papers' authors (``batch=fresh``). A criterion that needs none updates after the step, as SET does. ``rounding``
    makes k of a_t A: ``ceil`` (Algorithm 2) or ``floor`` (RigL, SET, the GSE authors' code).
    """

    batch: Annotated[str, OneOf("current", "fresh")] = "current"
    samples_per_class: Annotated[int, AtLeast(1)] | None = 10
    rounding: Annotated[str, OneOf("ceil", "floor")] = "ceil"

    parts: ClassVar[tuple[str, ...]] = ("prune", "grow", "schedule")
    scopes: ClassVar[tuple[str, ...]] = ("layer", "global")
    grows_at_zero: ClassVar[bool] = True

    def unread(self, parts: Mapping[str, Any]) -> set[str]:
        """Return the settings that have no effect given the others."""
        if parts["grow"] is None:
            return set()
        if parts["grow"].cost is Cost.NONE:
            return {"batch", "samples_per_class"}
        return {"samples_per_class"} if self.batch == "current" else set()

    def procedure(self, setting: Setting) -> Procedure:
        """Start updating."""
        from dstrun.method.dynamic.rewiring import Rewiring

        return Rewiring(setting, self.batch, self.samples_per_class, self.rounding)
