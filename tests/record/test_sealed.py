"""JSON is read as it was written, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dstrun.record import sealed

VALUE = {"id": "a", "accuracy": {"top1": 91.25, "loss": 0.5}, "layers": [{"name": "ü", "active": 12}], "none": None}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    sealed.write(tmp_path / "a.json", VALUE)
    assert sealed.read(tmp_path / "a.json") == {"schema": 2} | VALUE
    assert json.loads((tmp_path / "a.json").read_text())["id"] == "a"  # by any tool


def test_what_is_no_number_is_written_as_unknown() -> None:
    assert sealed.parse(sealed.seal({"accuracy": {"loss": float("inf")}, "x": [float("nan")]}).encode()) == {
        "schema": 2, "accuracy": {"loss": None}, "x": [None],
    }  # fmt: skip


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    data = sealed.seal(VALUE).encode()
    for at in range(len(data)):
        for bit in range(8):
            with pytest.raises(sealed.Damaged):
                sealed.parse(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        with pytest.raises(sealed.Damaged):
            sealed.parse(data[:at])
    with pytest.raises(sealed.Damaged, match="checksum"):
        sealed.parse(data + b"\n")


def test_older_files_have_no_checksum() -> None:
    assert sealed.parse(b'{"schema": 1, "top1": 5}') == {"schema": 1, "top1": 5}
    assert sealed.parse(b'{"state": "done"}') == {"state": "done"}


@pytest.mark.parametrize(
    "text",
    [
        "", "\0\0\0", "[]", "5", "{", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e400}', f'{{"a": 1{"0" * 400}}}',
        f'{{"a": {"9" * 5000}}}', '{"a": "\\ud800"}', '{"\\ud800": 1}', f'{{"a": {"[" * 100_000}',
        f'{{"a": {"[" * 80}{"]" * 80}}}', '{"schema": 2}', '{"schema": 2.5}', '{"checksum": "00000000"}',
    ],
)  # fmt: skip
def test_whatever_a_file_holds_is_said_in_a_sentence(text: str) -> None:
    with pytest.raises(sealed.Damaged):
        sealed.parse(text.encode())


def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises((sealed.Damaged, OSError)):
            sealed.read(path)
    with pytest.raises(FileNotFoundError):
        sealed.read(tmp_path / "absent")
