"""``dstrun doctor`` says what is there, and how to get what is not."""

from __future__ import annotations

import importlib.metadata

import pytest

from dstrun.cli import doctor


def test_a_library_that_is_not_installed_is_absent_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("tensorboard", "mlflow", "onnx"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "mlflow-skinny" else installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = {row["what"]: (row["state"], row["detail"]) for row in doctor.examine()[0]}
    assert rows["TensorBoard"] == ("absent", "pip install tensorboard")
    assert rows["ONNX"] == ("absent", "pip install 'dstrun[export]'")
    assert rows["MLflow"] == ("works", "1.0")
    assert rows["torch"][0] == "works"
    assert not [what for what, (state, _) in rows.items() if state == "broken"]
