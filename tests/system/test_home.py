"""Libraries that cannot write below the user's home get a folder for a while, and say nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASK = {
    "MPLCONFIGDIR": "home.for_matplotlib()\nimport matplotlib\nprint(matplotlib.get_configdir())\n",
    "WANDB_CACHE_DIR": "home.for_wandb()\nimport os\nprint(os.environ.get('WANDB_CACHE_DIR'))\n",
}
UNWRITABLE = {
    "a file": {"HOME": os.devnull},
    "gone": {"HOME": "/proc/nowhere"},
    "xdg": {"XDG_CONFIG_HOME": os.devnull, "XDG_CACHE_HOME": os.devnull},
    "chosen": {"MPLCONFIGDIR": os.devnull, "WANDB_CACHE_DIR": os.devnull},
}


def asked(variable: str, env: dict[str, str], tmp_path: Path) -> tuple[str, str]:
    """Return where a library writes in a process of its own, and what is said."""
    temporary = tmp_path / "tmp"
    temporary.mkdir(exist_ok=True)
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "TMPDIR": str(temporary)}
    code = f"from dstrun.system import home\n{ASK[variable]}"
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, env=plain | env, capture_output=True, text=True, check=True, cwd=ROOT)
    return made.stdout.strip(), made.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folders have other names")
@pytest.mark.parametrize("case", UNWRITABLE)
@pytest.mark.parametrize("variable", ASK)
def test_a_home_that_cannot_be_written_is_replaced_in_silence(variable: str, case: str, tmp_path: Path) -> None:
    folder, said = asked(variable, UNWRITABLE[case], tmp_path)
    assert Path(folder).parent == tmp_path / "tmp"
    assert not said
    assert not [*(tmp_path / "tmp").iterdir()]  # gone at the end


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folders have other names")
@pytest.mark.parametrize("variable", ASK)
def test_one_that_can_be_written_is_used(variable: str, tmp_path: Path) -> None:
    folder, said = asked(variable, {}, tmp_path)
    usual = {"MPLCONFIGDIR": str(tmp_path / "home" / ".config" / "matplotlib"), "WANDB_CACHE_DIR": "None"}
    assert (folder, said) == (usual[variable], "")
    chosen = str(tmp_path / "chosen")
    assert asked(variable, {variable: chosen, "HOME": os.devnull}, tmp_path) == (chosen, "")
