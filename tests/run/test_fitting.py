"""What fits into so much memory is found, and is the largest that does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dstrun.config.composition import compose
from dstrun.config.experiment import Experiment
from dstrun.run import fitting
from dstrun.system.trouble import ConfigError

WORDS = ["model=mlp", "dataset=digits", "method=set", "sparsity=0.9", "epochs=2"]


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 * 2**30), ("1.5 gb", 1_500_000_000), ("300MB", 300_000_000), ("20kib", 20 * 1024)]
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert fitting.parse(text) == size


@pytest.mark.parametrize("text", ["8", "GB", "-1GB", "8 GX", "0MB", ""])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"fit={text} is not an amount of memory"):
        fitting.parse(text)


def composed(more: Sequence[str] = ()) -> Experiment:
    keys = {word.partition("=")[0] for word in more}
    return compose([*(word for word in WORDS if word.partition("=")[0] not in keys), *more])


def test_the_largest_batch_and_width_fit_and_larger_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks that bend, as those of real networks: a part for each image and channel, and one of the square of both."""

    def peak(batch: float, width: float) -> int:
        return int(100_000 + 4_000 * batch * width + 300_000 * width**2 + 2 * batch**2)

    def foretold(experiment: Experiment) -> dict[str, int]:
        return {"peak_bytes": peak(experiment.config["batch_size"], experiment.config["model"]["width"])}

    monkeypatch.setattr(fitting, "predict_memory", foretold)
    limit = 2_000_000
    as_it_is, batch, width = fitting.fit(composed(), composed, limit)
    assert as_it_is == {"what": "as it is", "words": [], "peak_bytes": peak(128, 1), "fits": True}
    size = int(batch["words"][0].removeprefix("batch_size="))
    assert peak(size, 1) == batch["peak_bytes"] <= fitting.SAFE * limit < peak(1.03 * size, 1)
    assert "5,020 connections" in width["what"]
    wide = float(width["words"][0].removeprefix("model.width="))
    assert peak(128, wide) == width["peak_bytes"] <= fitting.SAFE * limit < peak(128, 1.03 * wide)
    assert sum(fitting.active(composed(width["words"]))) == pytest.approx(5020, abs=2)


def test_techniques_are_added_until_it_fits_and_only_those_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks by hand: one technique does nothing, one too little, one is refused; of two one would have done."""
    saves = {"backend=sparse": 1.0, "seed=7": 0.7, "scope=global": None, "precision=bf16": 0.45}
    techniques = [fitting.Technique(*word.partition("=")[::2], word != "precision=bf16") for word in saves]
    techniques = [fitting.Technique(t.setting, (str(t.values),), t.exact) for t in techniques]
    monkeypatch.setattr(fitting, "TECHNIQUES", techniques)

    def foretold(experiment: Sequence[str]) -> dict[str, int]:
        size = 1000.0
        for word in experiment:
            if saves.get(word, 1.0) is None:
                raise ConfigError("no")
            size *= saves.get(word, 1.0) or 1
        return {"peak_bytes": int(size)}

    monkeypatch.setattr(fitting, "predict_memory", foretold)

    def found(room: float) -> dict[str, object]:
        return fitting.made_room([], list, room, 1000)  # type: ignore[arg-type]

    assert found(750) == {"what": "techniques", "words": ["seed=7"], "peak_bytes": 700, "fits": True}
    assert found(500)["words"] == ["precision=bf16"]
    assert found(320)["words"] == ["seed=7", "precision=bf16"]
    assert not found(100)["fits"]
    assert found(320)["what"] == "techniques, which change the numbers"
