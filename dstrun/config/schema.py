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

    every_minutes: float = setting(10.0, Above(0), "from one checkpoint to the next")


@dataclass
class WandbSettings:
    """How a run is shown on Weights & Biases; where null, W&B's own environment variables decide."""

    mode: str = setting(
        "auto",
        OneOf("auto", "online", "offline", "disabled"),
        "of Weights & Biases; wandb=offline is short for wandb.mode=offline",
    )
    project: str | None = setting(None, None, "where runs go; null: WANDB_PROJECT, or dstrun")
    entity: str | None = setting(None, None, "user or team; null: WANDB_ENTITY, or the key's own")
    group: str | None = setting(None, None, "of runs; null: one for the seeds of each configuration")
    tags: list[str] = field(default_factory=list, metadata={"bound": None, "help": "besides its own: [pilot,lab]"})
    notes: str | None = setting(None, None, "a text shown with the run; null: WANDB_NOTES")
    system: bool = setting(False, None, "sample CPU, GPU, memory and disk of the machine, too")


@dataclass
class Schema:
    """The top-level settings and the groups; ``check`` checks their ranges."""

    sparsity: float = setting(0.9, Within(0, 1, high_open=True), "zeros / prunable weights")
    seed: int = setting(0, AtLeast(0), "of topology, initial weights, order and augmentation")
    epochs: int = setting(200, AtLeast(1), "passes over the training images")
    batch_size: int = setting(128, AtLeast(1), "images a step")
    microbatch: int | None = setting(
        None, AtLeast(1), "images a pass: the batch's gradient is summed over passes; null: one pass"
    )
    checkpointing: str = setting(
        "none", OneOf("none", "block", "sqrt"), "parts of the network computed again in the backward pass, not kept"
    )
    label_smoothing: float = setting(0.0, Within(0, 1, high_open=True), "of the cross-entropy")
    scope: str = setting("layer", OneOf("layer", "global"), "where prune and grow rank connections")
    initialization: str = setting(
        "network",
        OneOf("network", "fan_in"),
        "of a dense start: the network's own, or that of a sparse one, U(-b, b) of variance 1 / fan-in",
    )
    early_stop: int | None = setting(
        None, AtLeast(1), "epochs without a higher top-1 on validation images after which a run ends; null: none"
    )
    init: str | None = setting(
        None, None, "a finished run whose network is trained on: its folder, its id below results, or a beginning of it"
    )
    backend: str = setting("masked", OneOf(*names(), AUTO), summary())
    powerprop: float = setting(1.0, AtLeast(1), "p of w = v |v|^(p - 1), the weights trained through v; 1 is plain")
    strict: bool = setting(False, None, "refuse a layer that loses its last connection, instead of warning")
    device: str = setting("auto", OneOf("auto", "cpu", "cuda", "mps"), "where to train")
    step: str = setting("graph", OneOf("graph", "eager"), "of a GPU: replay ordinary steps as a CUDA graph, or not")
    precision: str = setting(
        "fp32", OneOf("fp32", "tf32", "bf16", "fp16"), "of the forward and backward pass; tf32 is of NVIDIA GPUs"
    )
    activations: str = setting(
        "full",
        OneOf("full", "lean", "bf16", "fp16", "int8", "int4"),
        "kept for the backward pass: as PyTorch does; the same numbers in less; rounded to 16, 8 or 4 bits",
    )
    weights: str = setting("fp32", OneOf("fp32", "bf16", "fp16"), "in which the weights of layers are stored")
    rounding: str = setting(
        "stochastic", OneOf("stochastic", "kahan"), "of 16-bit weights: at random, or what is lost is kept beside them"
    )
    state: str = setting(
        "fp32", OneOf("fp32", "bf16", "fp16", "int8"), "in which the optimizer's state of these weights is stored"
    )
    deterministic: bool = setting(True, None, "refuse operations that no GPU repeats bit for bit; false: say so")
    distributed: str | None = setting(None, OneOf("ddp"), "ddp: one run over the processes of torchrun or srun")
    experiment: str = setting("default", None, "folder under results")
    results: str = setting("results", None, "where records go")
    tracker: Any = field(
        default="wandb",
        metadata={"bound": trackers, "help": "services that show a run: one, or several as [wandb,tensorboard]"},
    )
    wandb: WandbSettings = field(default_factory=WandbSettings)
    threads: int | None = setting(None, AtLeast(1), "CPU threads; all cores if null")
    trusted: list[str] = field(
        default_factory=list,
        metadata={"bound": None, "help": "installed packages whose classes an option's _target_ may name: [timm]"},
    )
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    retry: int = setting(0, AtLeast(0), "how often a sweep tries a run again that failed or was lost")
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
    """Return what a setting is where nobody sets it."""
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
