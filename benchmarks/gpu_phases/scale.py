"""Which networks and how many steps: those of the real thing on a GPU, stand-ins that take seconds on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("set", "rigl", "gse")
TECHNIQUES = (
    "activations=lean",
    "activations=int8",
    "checkpointing=block",
    "checkpointing=sqrt",
    "microbatch=16",
    "weights=bf16 state=int8",
    "activations=int8 checkpointing=block microbatch=16 weights=bf16 state=int8",
)
"""Words that make a step hold less."""
WIDTHS = (
    *((n, 128) for n in (4_096, 16_384, 65_536, 262_144)),
    *((16_384, degree) for degree in (1_638, 819, 328, 164)),
)
"""The last four at 90, 95, 98 and 99 %."""


@dataclass(frozen=True)
class Scale:
    """Words of the runs that are checked and timed.

    Attributes:
        device: ``cuda`` or ``cpu``.
        images: the data set.
        few: as many of its images as checks take.
        networks: by name, for what is timed and what is repeated.
        small: the network that is compared with the CPU.
        main: the name of the network that most checks take.
        blocks: the name of the network with blocks, which can be checkpointed.
        precisions: that are timed, the first two repeated.
        block_s: seconds of a block of timed steps.
        rounds: of blocks in turns.
        margin_s: in which a network is timed: none is begun with less.
        together: how many processes are tried side by side.
        beside_s: seconds that they train.
        packed: names of the networks of which several are trained on a stream each.
        workers: processes of checks at once.
        threads: of a CPU that the GPU is compared with.
        widths: n and the connections of a unit, of the linear layers n -> n that are timed.
    """

    device: str
    images: tuple[str, ...]
    few: tuple[str, ...]
    networks: dict[str, tuple[str, ...]]
    small: tuple[str, ...]
    main: str
    blocks: str
    precisions: tuple[str, ...] = ("tf32", "bf16", "fp32")
    block_s: float = 0.3
    rounds: int = 5
    margin_s: float = 10.0
    together: tuple[int, ...] = (1, 2, 4, 8)
    beside_s: float = 3.0
    packed: tuple[str, ...] = ("vgg16_small", "resnet56")
    workers: int = 12
    threads: int = 4
    widths: tuple[tuple[int, int], ...] = WIDTHS

    def words(self, network: str, *more: str, few: bool = False) -> list[str]:
        """Return the words of a run of a network."""
        images = self.few if few else self.images
        return [*images, *self.networks[network], "threads=1", "step=graph", *more]


def scale(device: str, root: str) -> Scale:
    """Return what a device is up to.

    Args:
        device: ``cuda`` or ``cpu``.
        root: the folder of CIFAR-10.
    """
    if device == "cuda":
        images = ("dataset=cifar10", f"dataset.root={root}")
        names = ("vgg16_small", "resnet56", "vit")
        return Scale(
            device=device,
            images=images,
            few=(*images, "dataset.limit=2560", "epochs=20"),
            networks={name: (f"model={name}",) for name in names},
            small=("model=resnet20",),
            main="vgg16_small",
            blocks="resnet56",
        )
    images = ("dataset=digits", "batch_size=32")
    return Scale(
        device=device,
        images=images,
        few=(*images, "dataset.limit=640", "epochs=20"),
        networks={"mlp": ("model=mlp",), "resnet20": ("model=resnet20", "model.width=0.25")},
        small=("model=resnet20", "model.width=0.25"),
        main="mlp",
        blocks="resnet20",
        precisions=("fp32", "bf16"),
        block_s=0.1,
        rounds=2,
        margin_s=2.0,
        together=(1, 2),
        beside_s=0.5,
        packed=("mlp",),
        workers=2,
        threads=1,
        widths=((64, 8), (256, 8)),
    )


def every(steps: int) -> tuple[str, ...]:
    """Return the words of an update every so many steps, for methods that have a schedule."""
    return (f"schedule.interval_steps={steps}", "schedule.begin=0")
