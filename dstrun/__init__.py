"""dstrun: a command-line runner for experiments in sparse training of neural networks.

As a library it offers the names below (``docs/python.md``, ``docs/library.md``), each imported when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dstrun.allocation.er import ER as ER
    from dstrun.allocation.erk import ERK as ERK
    from dstrun.allocation.uniform import Uniform as UniformAllocation  # noqa: F401
    from dstrun.backend.sparse.layer import Conv1d as Conv1d
    from dstrun.backend.sparse.layer import Conv2d as Conv2d
    from dstrun.backend.sparse.layer import Linear as Linear
    from dstrun.backend.sparse.layer import sparsify as sparsify
    from dstrun.config.option import option as option
    from dstrun.grow.gradient import Gradient as Gradient
    from dstrun.grow.gse import GSE as GSE
    from dstrun.grow.random import Random as RandomGrowth  # noqa: F401
    from dstrun.layer.attention import expose as expose
    from dstrun.layer.growth import GrowthRequest as GrowthRequest
    from dstrun.layer.interface import SparseLayer as SparseLayer
    from dstrun.layer.interface import prunable as prunable
    from dstrun.layer.interface import skeleton as skeleton
    from dstrun.layer.topology import Topology as Topology
    from dstrun.library.results import epochs as epochs
    from dstrun.library.results import plot as plot
    from dstrun.library.results import runs as runs
    from dstrun.library.results import table as table
    from dstrun.library.sparsifier import Sparsifier as Sparsifier
    from dstrun.library.training import RunError as RunError
    from dstrun.library.training import train as train
    from dstrun.optimizer.aged import AgedAdam as AgedAdam
    from dstrun.run.shipping import load as load
    from dstrun.subset.grabo import GraBo as GraBo
    from dstrun.subset.graest import GraEst as GraEst
    from dstrun.subset.uniform import Uniform as UniformSubset  # noqa: F401
    from dstrun.system.trouble import ConfigError as ConfigError

__version__ = "0.1.0"

PUBLIC = {
    "ER": "allocation.er.ER",
    "ERK": "allocation.erk.ERK",
    "UniformAllocation": "allocation.uniform.Uniform",
    "Conv1d": "backend.sparse.layer.Conv1d",
    "Conv2d": "backend.sparse.layer.Conv2d",
    "Linear": "backend.sparse.layer.Linear",
    "sparsify": "backend.sparse.layer.sparsify",
    "option": "config.option.option",
    "Gradient": "grow.gradient.Gradient",
    "GSE": "grow.gse.GSE",
    "RandomGrowth": "grow.random.Random",
    "expose": "layer.attention.expose",
    "GrowthRequest": "layer.growth.GrowthRequest",
    "SparseLayer": "layer.interface.SparseLayer",
    "prunable": "layer.interface.prunable",
    "skeleton": "layer.interface.skeleton",
    "Topology": "layer.topology.Topology",
    "epochs": "library.results.epochs",
    "plot": "library.results.plot",
    "runs": "library.results.runs",
    "table": "library.results.table",
    "Sparsifier": "library.sparsifier.Sparsifier",
    "RunError": "library.training.RunError",
    "train": "library.training.train",
    "AgedAdam": "optimizer.aged.AgedAdam",
    "load": "run.shipping.load",
    "GraBo": "subset.grabo.GraBo",
    "GraEst": "subset.graest.GraEst",
    "UniformSubset": "subset.uniform.Uniform",
    "ConfigError": "system.trouble.ConfigError",
}
"""What a library user needs, by name, and where it is."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'dstrun' has no attribute {name!r}")
    module, _, attribute = PUBLIC[name].rpartition(".")
    return getattr(import_module(f"dstrun.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
