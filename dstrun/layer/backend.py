"""What the program needs from a backend, a way to store layers and compute with them; and which backends exist.

A backend is a package ``dstrun/backend/NAME``, found by its folder. Its ``__init__.py`` loads no torch and offers an
instance of ``Backend`` as ``BACKEND``; its layers stand in modules beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, ClassVar

from dstrun.system.trouble import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dstrun.layer.geometry import Layer
    from dstrun.layer.initial import Initial
    from dstrun.layer.interface import SparseLayer

HOME = "dstrun.backend"
"""The package of all backends, loaded by name: it stands below the rooms that ask."""
AUTO = "auto"
"""What ``backend=`` says to have layers stored as trains fastest (``dstrun.run.choose``); no backend itself."""
UNMEASURED = "sparse"
"""The backend that ``auto`` counts as where nothing is measured: in plans."""


class Backend(ABC):
    """Traits of a backend; a subclass overrides what is different.

    Attributes:
        dense: whether storage is dense, and its layers are ``DenseLayer``: methods that need it, and ``powerprop``,
            work on no other.
        skips_zeros: whether products leave inactive connections out; else the FLOPs of the dense layer are executed.
        repeats: whether every ordinary step launches the same kernels on the same tensors, which a GPU can replay.
        remark: what is said of it in brackets where a run starts and below tables; empty for nothing.
    """

    dense: ClassVar[bool] = False
    skips_zeros: ClassVar[bool] = True
    repeats: ClassVar[bool] = False
    remark: ClassVar[str] = ""

    @abstractmethod
    def replace(
        self, model: nn.Module, name: str, module: Layer, start: Initial, device: torch.device | None = None
    ) -> SparseLayer:
        """Store one layer of a network, with the initial topology, weights and bias.

        Args:
            model: changed in place.
            name: of the layer in it.
            module: the layer, which may lie on ``meta``.
            start: what it starts with.
            device: where it goes; by default where it is, or the CPU from ``meta``.

        Raises:
            TypeError: it cannot be replaced.
        """

    def finish(self, model: nn.Module) -> None:  # noqa: B027
        """Adapt what stands between layers, once those of a network have been replaced; by default nothing."""

    def wrap(self, model: nn.Module, device: torch.device) -> list[SparseLayer]:
        """Convert every prunable layer as it is, all connections active, on a device; asked where ``dense``."""
        raise NotImplementedError

    def lacks(self, name: str, module: Layer, device: torch.device) -> str:
        """Return why a layer cannot be trained on a device, in a sentence; empty where it can."""
        return ""

    def laid_out(self, x: Tensor, module: Layer) -> Tensor:
        """Lay a layer's input out in memory as the layer before would have left it; by default as it is."""
        return x

    def announce(self, say: Callable[[str], None]) -> None:  # noqa: B027
        """Announce what the first step on a CPU will wait for; by default nothing."""


def names() -> list[str]:
    """List the backends by name."""
    return sorted(found.name for found in iter_modules(import_module(HOME).__path__) if found.ispkg)


@cache
def backend(name: str) -> Backend:
    """Return the traits of a backend.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in names():
        raise ConfigError(f"backend={name} is not known: choose {', '.join(names())}")
    return import_module(f"{HOME}.{name}").BACKEND


def is_dense(name: str) -> bool:
    """Return whether layers have dense storage; a name in an old record may be that of no backend here."""
    return name in names() and backend(name).dense


def described(name: str) -> str:
    """Return a name with the remark of the backend, if there is such a one here: ``masked (simulated on ...)``."""
    remark = backend(name).remark if name in names() else ""
    return f"{name} ({remark})" if remark else name


def summary() -> str:
    """Return the help of ``backend``: which backends have dense storage."""
    dense = [name for name in names() if is_dense(name)]
    others = [name for name in names() if name not in dense]
    simulate, store = ("simulates" if len(dense) == 1 else "simulate"), ("stores" if len(others) == 1 else "store")
    return (
        f"{' and '.join(dense)} {simulate} sparsity on dense storage, "
        f"{' and '.join(others)} {store} active weights alone, {AUTO} mixes both"
    )
