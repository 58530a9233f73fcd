"""A finished run's network evaluated again: on the images of its record, or on others of the same classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from dstrun.config.composition import compose
from dstrun.config.identity import is_text
from dstrun.config.option import check_value
from dstrun.config.override import parse, texts
from dstrun.config.schema import SETTINGS
from dstrun.report.format import Column
from dstrun.report.load import Run
from dstrun.run.finished import Facts, past
from dstrun.system.trouble import ConfigError

SPLITS = ("train", "val", "test")
COLUMNS = [
    Column("run"), Column("dataset"), Column("split"), Column("images", kind="number"),
    Column("top1", "top-1 %", "number", 2), Column("top5", "top-5 %", "number", 2),
    Column("loss", kind="number", digits=4), Column("record", "record's top-1 %", "number", 2), Column("agrees"),
]  # fmt: skip


def settings(run: Run, words: Sequence[str], split: str | None, config_dirs: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a run with another data set, or other settings of its own; imports no torch.

    Args:
        run: finished.
        words: ``dataset=NAME``, ``dataset.KEY=VALUE`` and ``device=``, as typed.
        split: one of ``SPLITS``; by default what the run was evaluated on, of another data set its test images.
        config_dirs: folders of the user's own options.

    Raises:
        ConfigError: a word that has no place here, or images that nobody has held out.
    """
    config: dict[str, Any] = dict((run.record or {})["config"])
    parsed = parse(words)
    for override in parsed:
        key = override.key_or_group
        if key not in ("dataset", "device") and not key.startswith("dataset."):
            raise ConfigError(f"{override.input_line} makes no sense here: choose dataset=, dataset.KEY= or device=")
        if override.input_line and override.input_line[0] in "+~":
            raise ConfigError(f"{override.input_line} makes no sense here: write {key}=VALUE")
    if any(override.key_or_group == "dataset" for override in parsed):
        small = ["model=mlp", "method=dense", "batch_size=1", *words]
        config["dataset"] = compose(small, config_dirs).config["dataset"]
    else:
        node, typed = dict(config["dataset"]), texts(parsed)
        for override in parsed:
            group, _, leaf = override.key_or_group.partition(".")
            if leaf:
                text = typed.get(f"{group}.{leaf}")
                node[leaf] = text if text is not None and is_text(node, leaf) else override.value()
        config["dataset"] = node
    for override in parsed:
        if override.key_or_group == "device":
            check_value("device", device := str(override.value()), Annotated[str, SETTINGS["device"].metadata["bound"]])
            config["device"] = device
    held = config["dataset"].get("validation")
    if split == "val" and not held:
        raise ConfigError("--split val has no images, as none were held out: set dataset.validation=N to hold out N")
    if split == "test" and held:
        config["dataset"] = config["dataset"] | {"validation": 0}
    return config


def evaluate(
    run: Run, config: Mapping[str, Any], split: str | None, trusted: Collection[str] = (), places: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a run's network, computed as in training.

    Args:
        run: finished.
        config: of it, with the data set to evaluate on (``settings``).
        split: ``train`` for the training images, without augmentation; else what the data set evaluates on.
        trusted: packages whose classes may be called.
        places: folders of the user's own modules.

    Returns:
        A row of ``COLUMNS``; ``agrees`` where the images are those of the record.

    Raises:
        ConfigError: weights or images are not here, or the images are of other shape or classes.
    """
    from dstrun.run.assemble import set_device
    from dstrun.run.restore import restore
    from dstrun.train.device import pick_device
    from dstrun.train.evaluate import evaluate as measure
    from dstrun.train.precision import likes_channels_last

    record: dict[str, Any] = run.record or {}
    dataset = past(record | {"config": config}, None, trusted, places).build("dataset")
    device = pick_device(config["device"])
    set_device(dict(config), device)
    restored = restore(run, device, trusted, places)
    _check_same(restored.facts, dataset)
    training, size = restored.training, config["batch_size"]
    last = likes_channels_last(config["precision"], device)
    loader = dataset.open(device, min(size, dataset.train_images), config["seed"], channels_last=last)
    try:
        loader.set_statistics(restored.facts.mean, restored.facts.std)
        batches = loader.eval_batches(training.passes.size or size, split == "train")
        found = measure(training.model, batches, training.precision)
    finally:
        loader.close()
    data, accuracy = record.get("data") or {}, record["accuracy"]
    same = loader.source == data.get("source") or loader.checksum == data.get("checksum")
    same = same and split != "train" and loader.split == accuracy.get("split")
    return {
        "run": run.id,
        "dataset": str(config["dataset"]["_target_"]).rpartition(".")[2],
        "split": "train" if split == "train" else loader.split,
        "images": len(loader.labels if split == "train" else loader.eval_labels),
        **found,
        "record": accuracy["top1"] if same else None,
        "agrees": all(found[key] == accuracy.get(key) for key in found) if same else None,
    }


def _check_same(facts: Facts, dataset: Any) -> None:
    """Check that images of a data set are such as a network has been trained on.

    Raises:
        ConfigError: they are not.
    """
    if tuple(dataset.image) != facts.image:
        here, there = ("x".join(map(str, image)) for image in (dataset.image, facts.image))
        raise ConfigError(f"dataset has images of {here}, and the network takes {there}")
    if dataset.classes != facts.classes:
        raise ConfigError(f"dataset has {dataset.classes} classes, and the network has {facts.classes}")
    names = getattr(dataset, "names", None)
    if names is not None and facts.names is not None and tuple(names) != facts.names:
        odd = next((a, b) for a, b in zip(names, facts.names, strict=True) if a != b)
        raise ConfigError(f"dataset has a class {odd[0]} where the network has {odd[1]}")
