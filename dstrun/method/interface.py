"""What a method is: what it requires, what it will compute, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dstrun.config.option import option
from dstrun.layer.interface import SparseLayer
from dstrun.method.forecast import Forecast
from dstrun.method.procedure import Procedure, Setting
from dstrun.method.requirements import Requirements

if TYPE_CHECKING:
    from torch import nn

    from dstrun.model import Model


@option
class Method(Requirements, Forecast):
    """A whole training procedure, chosen by ``method=``; options inherit from it and override what differs."""

    def network(self, option: Model, build: Callable[[Model], nn.Module], budget: int) -> Model:
        """Return the option of the network that is trained, where it is not the one chosen.

        Args:
            option: of the group ``model``, as chosen.
            build: builds the network of an option without weights, on the meta device.
            budget: connections that shall be active at the end.

        Raises:
            ConfigError: no such network keeps to the budget.
        """
        return option

    def counts(self, model: nn.Module, budget: int) -> list[int] | None:
        """Return each layer's final count where the structure decides; ``None``: an allocation or scores do.

        Args:
            model: the network that is trained, without weights.
            budget: connections that shall be active at the end.

        Raises:
            ConfigError: the structure cannot keep to the budget.
        """

    def reparametrize(self, model: nn.Module, layers: Sequence[SparseLayer]) -> None:
        """Parametrize the weights of layers, before the optimizer is built."""

    def parameters(self, model: nn.Module, weight_decay: float) -> Any:
        """Return the optimizer's parameters, or groups of them with settings of their own."""
        return model.parameters()

    def procedure(self, setting: Setting) -> Procedure:
        """Start the procedure of one run."""
        return Procedure()
