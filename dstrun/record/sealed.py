"""JSON files that the program writes and reads: they end with a checksum of all bytes before, and are read in bounds.

A file that has a checksum must match it, and one of schema 2 or later must have one; older versions wrote none.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from pathlib import Path
from typing import Any
from zlib import crc32

from dstrun.system import bounded
from dstrun.system.progress import say_once
from dstrun.system.trouble import why
from dstrun.system.whole import write_atomic

SCHEMA = 2
"""Since which files are sealed."""

MAX_BYTES = 64 << 20
MAX_DEPTH = 50
MAX_NUMBER = 1e300

END = re.compile(rb',\n "checksum": "([0-9a-f]{8})"\n}\Z')
END_BYTES = len(b',\n "checksum": "01234567"\n}')


class Damaged(ValueError):
    """A file does not hold what was written; the message says why, as in ``it is damaged: ...``."""


def seal(value: dict[str, Any]) -> str:
    """Return the text of an object with its schema first and its checksum last; what is no number becomes null."""
    whole = {"schema": SCHEMA} | {k: v for k, v in value.items() if k not in ("schema", "checksum")}
    try:
        body = json.dumps(whole, indent=1, allow_nan=False)[:-2]
    except ValueError:
        body = json.dumps(_finite(whole), indent=1, allow_nan=False)[:-2]
    return f'{body},\n "checksum": "{crc32(body.encode()):08x}"\n}}'


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def write(path: Path, value: dict[str, Any], **how: Any) -> None:
    """Replace a file by a sealed object; ``how`` as for ``write_atomic``."""
    write_atomic(path, seal(value), **how)


def read(path: Path | str) -> dict[str, Any]:
    """Read an object, sealed or of an older version; its checksum is not part of it.

    Raises:
        OSError: the file cannot be read.
        Damaged: it holds something else, or not what was written.
    """
    return parse(content(path))


def read_if_whole(path: Path | str) -> dict[str, Any] | None:
    """Read an object; ``None`` where there is none, or it cannot be used, which is said once."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except Damaged as error:
        say_once(f"{path} is damaged: {error}: skipped")
    except OSError as error:
        say_once(f"{path} cannot be read ({why(error)}): skipped")
    return None


def content(path: Path | str) -> bytes:
    """Read a file that is one: a pipe or device in its place does not keep the reader waiting.

    Raises:
        OSError: it cannot be read.
        Damaged: it is no file, or too large.
    """
    try:
        return bounded.content(path, MAX_BYTES)
    except (bounded.NoFile, ValueError) as error:
        raise Damaged(str(error)) from error


def parse(data: bytes) -> dict[str, Any]:
    """Parse an object from the bytes of a file.

    Raises:
        Damaged: they hold something else, or not what was written.
    """
    sealed = END.search(data, max(0, len(data) - END_BYTES))
    if sealed and crc32(memoryview(data)[: sealed.start()]) != int(sealed[1], 16):
        raise Damaged("its checksum does not match: something in it has changed")
    try:
        value = _decoder.decode(data.decode())
    except RecursionError:
        raise Damaged("nested too deeply") from None
    except UnicodeDecodeError:
        raise Damaged("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Damaged("empty" if not data.strip(b"\0 \n\r\t") else f"not JSON ({error})") from None
    except ValueError as error:  # a number of more digits than Python takes
        raise Damaged(str(error).partition(";")[0]) from None
    if not isinstance(value, dict):
        raise Damaged("not a JSON object")
    if sealed is None and ("checksum" in value or _late(value.get("schema"))):
        raise Damaged("its checksum is cut off or was not written")
    value.pop("checksum", None)
    _bounded(value)
    if rb"\u" in data:  # alone a text that is escaped can hold half a character
        _check_texts(value)
    return value


def _late(schema: Any) -> bool:
    return isinstance(schema, int | float) and schema >= SCHEMA


def _no_number(word: str) -> Any:
    raise Damaged(f"{word} is not a number")


_decoder = json.JSONDecoder(parse_constant=_no_number)


def _bounded(value: dict[str, Any]) -> None:
    """Refuse what is nested so deeply, or so large, that whoever walks it or counts with it would fail."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = []
        for node in level:
            for item in node.values() if type(node) is dict else node:
                kind = type(item)
                if kind is float or kind is int:
                    if not -MAX_NUMBER < item < MAX_NUMBER:
                        raise Damaged("a number in it is out of range")
                elif kind is dict or kind is list:
                    inner.append(item)
        if not inner:
            return
        level = inner
    raise Damaged("nested too deeply")


def _check_texts(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Damaged("an incomplete character in it") from None
