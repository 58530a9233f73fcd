"""What is freed stays with the process, where the C library can be told so."""

import sys
from pathlib import Path

import fork_server
import pytest

from dstrun.system.heap import HUGE, largest_block

PROGRAM = """
import resource
import torch
from dstrun.system.heap import keep_freed

def faults(steps=20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
assert keep_freed()
faults()
print(before, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_large_tensors_are_not_paged_in_again(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = fork_server.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 10


def test_very_wide_layers_have_huge_activations() -> None:
    assert largest_block([(300, 784), (10, 300)], 100) == 4 * 100 * 784
    assert largest_block([(64, 3, 7, 7)], 1024) == largest_block([], 1) == 0
    assert largest_block([(4096, 4096)], 1024) < HUGE < largest_block([(1 << 20, 784)], 64)
