"""The settings of a run: names, types, defaults, bounds, and the line of help of each.

Hydra checks their types, as ``composition`` hands it ``Schema``.
"""

from __future__ import annotations

from dataclasses import MISSING as NONE
from dataclasses import Field, dataclass, field, fields
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from dstrun.config.option import Above, AtLeast, OneOf, Within
from dstrun.layer.backend import AUTO, names, summary


def setting(default: Any, bound: Any, help: str) -> Any:
    """Declare a top-level setting: its default, its bound and the line that ``dstrun help settings`` prints."""
    return field(default=default, metadata={"bound": bound, "help": help})


def trackers() -> tuple[str, ...]:
    """Name what ``tracker=`` takes: the modules of ``dstrun.tracker`` but for what they share, and ``none``."""
    package = find_spec("dstrun.tracker")
    places = (package and package.submodule_search_locations) or ()
    return (*sorted(module.name for module in iter_modules(places) if module.name not in ("page", "protocol")), "none")


def listed(tracker: Any) -> list[str]:
    """Return the trackers that ``tracker=`` names, in its order; none of ``none`` alone."""
    names = dict.fromkeys(map(str, tracker)) if isinstance(tracker, list) else [str(tracker or "none")]
    return [] if [*names] == ["none"] else [*names]


MISSING = "???"
"""OmegaConf's word for a value that has to be set."""


@dataclass
class CheckpointSettings:
    """When a run is saved."""

    every_minutes: float = setting(10.0, Above(0), "minutes between checkpoints")


@dataclass
class WandbSettings:
    """How a run is shown on Weights & Biases; where null, W&B's own environment variables decide."""

    mode: str = setting(
        "auto",
        OneOf("auto", "online", "offline", "disabled"),
        "mode of Weights & Biases; wandb=offline is short for wandb.mode=offline",
    )
    project: str | None = setting(None, None, "project of the runs; null: WANDB_PROJECT, or dstrun")
    entity: str | None = setting(None, None, "user or team; null: WANDB_ENTITY, or the default of the API key")
    group: str | None = setting(None, None, "group of runs; null: one for the seeds of each configuration")
    tags: list[str] = field(default_factory=list, metadata={"bound": None, "help": "additional tags: [pilot,lab]"})
    notes: str | None = setting(None, None, "a text shown with the run; null: WANDB_NOTES")
    system: bool = setting(False, None, "also log CPU, GPU, memory and disk use of the machine")


@dataclass
class Schema:
    """The top-level settings and the groups; ``check`` checks their ranges."""

    sparsity: float = setting(0.9, Within(0, 1, high_open=True), "target sparsity: zeros / prunable weights")
    seed: int = setting(0, AtLeast(0), "random seed of topology, initial weights, data order and augmentation")
    epochs: int = setting(200, AtLeast(1), "passes over the training images")
    batch_size: int = setting(128, AtLeast(1), "images per step")
    microbatch: int | None = setting(
        None, AtLeast(1), "images per pass, with gradients accumulated over a batch; null: the whole batch"
    )
    checkpointing: str = setting(
        "none", OneOf("none", "block", "sqrt"), "gradient checkpointing: blocks recomputed in the backward pass"
    )
    label_smoothing: float = setting(0.0, Within(0, 1, high_open=True), "label smoothing of the cross-entropy")
    scope: str = setting("layer", OneOf("layer", "global"), "rank connections within each layer, or over all layers")
    initialization: str = setting(
        "network",
        OneOf("network", "fan_in"),
        "initial weights of a dense start: the network's own, or those of a sparse start, U(-b, b) of "
        "variance 1 / fan-in",
    )
    early_stop: int | None = setting(
        None, AtLeast(1), "end a run after so many epochs without a higher validation top-1; null: never"
    )
    init: str | None = setting(
        None, None, "start from the network of a finished run: its folder, its id or the beginning of its id"
    )
    backend: str = setting("masked", OneOf(*names(), AUTO), summary())
    powerprop: float = setting(
        1.0, AtLeast(1), "Powerprop exponent p: weights w = v |v|^(p - 1), with v trained; 1: none"
    )
    strict: bool = setting(False, None, "fail instead of warning when a layer loses its last connection")
    device: str = setting("auto", OneOf("auto", "cpu", "cuda", "mps"), "device to train on")
    step: str = setting(
        "graph", OneOf("graph", "eager"), "on a GPU: replay ordinary steps as a CUDA graph, or run them eagerly"
    )
    precision: str = setting(
        "fp32",
        OneOf("fp32", "tf32", "bf16", "fp16"),
        "precision of the forward and backward pass; tf32 needs an NVIDIA GPU",
    )
    activations: str = setting(
        "full",
        OneOf("full", "lean", "bf16", "fp16", "int8", "int4"),
        "activations saved for backward: as in PyTorch; the same values in less memory; rounded to 16, 8 or 4 bits",
    )
    weights: str = setting("fp32", OneOf("fp32", "bf16", "fp16"), "storage format of layer weights")
    rounding: str = setting(
        "stochastic",
        OneOf("stochastic", "kahan"),
        "rounding of 16-bit weights: stochastic, or with compensation kept (Kahan)",
    )
    state: str = setting(
        "fp32", OneOf("fp32", "bf16", "fp16", "int8"), "storage format of the optimizer state of these weights"
    )
    deterministic: bool = setting(True, None, "refuse nondeterministic GPU operations; false: only warn")
    distributed: str | None = setting(None, OneOf("ddp"), "ddp: one run over the processes of torchrun or srun")
    experiment: str = setting("default", None, "folder under results")
    results: str = setting("results", None, "folder of all runs")
    tracker: Any = field(
        default="wandb",
        metadata={"bound": trackers, "help": "experiment trackers: one, or several as [wandb,tensorboard]"},
    )
    wandb: WandbSettings = field(default_factory=WandbSettings)
    threads: int | None = setting(None, AtLeast(1), "CPU threads; null: all cores")
    trusted: list[str] = field(
        default_factory=list,
        metadata={"bound": None, "help": "installed packages whose classes an option's _target_ may name: [timm]"},
    )
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    retry: int = setting(0, AtLeast(0), "how often a sweep retries a run that failed or was lost")
    fail_fast: bool = setting(False, None, "stop a sweep at its first failure")

    model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    prune: Any = None
    grow: Any = None
    subset: Any = None
    allocation: Any = None
    schedule: Any = None
    optimizer: Any = MISSING
    loss: Any = None

    recipe: dict[str, Any] = field(default_factory=dict)


def default(item: Field[Any]) -> Any:
    """Return the default of a setting."""
    return item.default if item.default_factory is NONE else item.default_factory()


PARTS = {"checkpoint": CheckpointSettings, "wandb": WandbSettings}
"""Settings that stand together under one key."""
SETTINGS = {f.name: f for f in fields(Schema) if f.metadata} | {
    f"{part}.{f.name}": f for part, cls in PARTS.items() for f in fields(cls)
}
"""What is declared with ``setting``, by the name under which it is set."""
NAMES = {name for name, item in SETTINGS.items() if str(item.type).startswith("str")}
"""Settings that are text, whatever it looks like."""
DEFAULTS: dict[str, Any] = {name: default(f) for name, f in SETTINGS.items() if "." not in name} | {
    **{part: {f.name: default(f) for f in fields(cls)} for part, cls in PARTS.items()},
    "recipe": {},
    "tracker": listed("wandb"),
}
"""What a setting is by default, by its key at the top."""
KNOWN = [f.name for f in fields(Schema)]
OPTIONAL = [f.name for f in fields(Schema) if not f.metadata and f.default is None]
"""Groups that may be without an option: ``null``."""


def place(config: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Return the dictionary that holds a setting, and its key there: ``wandb.mode`` is ``mode`` of ``wandb``."""
    part, _, leaf = name.rpartition(".")
    return (config[part] if part else config), leaf
