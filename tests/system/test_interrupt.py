"""Ctrl-C where nothing is to be saved: no traceback, however often and wherever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

ONCE = "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
TWICE = f"""
try:
    {ONCE}
except KeyboardInterrupt:
    {ONCE}
"""
IN_A_CALLBACK = """
import weakref
class Dies: pass
here = Dies()
kept = weakref.ref(here, lambda _: signal.raise_signal(signal.SIGINT))
del here
time.sleep(9)
"""


@pytest.mark.parametrize("code", [TWICE, IN_A_CALLBACK], ids=["twice", "in a callback"])
def test_it_leaves_at_once_and_says_nothing(code: str) -> None:
    begin = "import os, signal, time\nfrom dstrun.system.interrupt import leave_quietly\nleave_quietly()\n"
    done = subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, timeout=8)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_caller_keeps_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from dstrun.cli.main import main

    before = signal.getsignal(signal.SIGINT)
    main(["--version"])
    assert signal.getsignal(signal.SIGINT) is before
