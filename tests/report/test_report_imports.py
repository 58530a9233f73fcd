from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ("compare", "export", "fields", "figure", "format", "load", "page", "published", "status", "style", "table")


@pytest.mark.parametrize("module", MODULES)
def test_report_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "matplotlib", "pandas", "wandb", "scipy", "numpy", "rich", "hydra", "pyarrow", "yaml", "jinja2"}
    code = f"import sys, dstrun.report.{module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
