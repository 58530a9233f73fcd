"""Files of others, within bounds: regular, not too long, not too deep, no link. Standard library and PyYAML."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from dstrun.system.trouble import ConfigError, why

YAML_BYTES = 1 << 20
DEPTH = 50
NODES = 100_000
"""Of a YAML file once its aliases are written out."""


class Endless(ValueError):
    """A YAML document contains itself."""


class NoFile(OSError):
    """What stands there is a folder, a pipe, a socket or a device."""


def content(path: Path | str, limit: int = YAML_BYTES, *, last: bool = False) -> bytes:
    """Read a regular file; a pipe, a socket or a device is refused and not waited for.

    Args:
        path: of the file.
        limit: bytes it may have.
        last: whether of a longer file the last ``limit`` bytes are read, in place of refusing it.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is too long.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:  # without a file object, which takes a third of the time of a small file
        info = os.fstat(number)
        if not stat.S_ISREG(info.st_mode):
            raise NoFile(f"{path} is not a regular file")
        if last:
            os.lseek(number, max(0, info.st_size - limit), os.SEEK_SET)
        most = min(max(info.st_size, 1 << 12), limit) + 1
        found = os.read(number, most)
        while len(found) <= limit and len(found) != info.st_size and (more := os.read(number, most)):
            found += more
    finally:
        os.close(number)
    if last:
        return found[:limit]
    if len(found) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return found


def piece(path: Path | str, start: int, length: int) -> bytes:
    """Read a part of a regular file; shorter where the file ends.

    Args:
        path: of the file; a pipe, a socket or a device is refused and not waited for.
        start: its first byte.
        length: of the part, which the caller bounds.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise NoFile(f"{path} is not a regular file")
        found = os.pread(number, length, start)
        while len(found) < length and (more := os.pread(number, length - len(found), start + len(found))):
            found += more
    finally:
        os.close(number)
    return found


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link where a file or folder of ours is about to be written.

    Raises:
        OSError: there is one.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, which dstrun does not write through", str(path))


def parse_yaml(text: str) -> Any:
    """Parse a YAML text of plain values within the bounds.

    Raises:
        ValueError: it is too deep or too large once its aliases are written out.
        yaml.YAMLError: it is no YAML.
    """
    import yaml

    check_yaml(text)
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def check_yaml(text: str) -> None:
    """Check depth and size of a YAML document without building it.

    Raises:
        ValueError: it is too deep, too large, or contains itself.
        yaml.YAMLError: it is no YAML.
    """
    import yaml

    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in open_nodes):
                raise Endless("an alias inside its own anchor")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if len(open_nodes) > DEPTH:
            raise ValueError(f"more than {DEPTH} levels deep")
        if total > NODES:
            raise ValueError(f"more than {NODES:,} values")


def check_file(path: Path) -> None:
    """Check a YAML file of options; what is no YAML is left to whoever reads it.

    Raises:
        ConfigError: it is out of bounds.
    """
    import yaml

    try:
        check_yaml(content(path).decode(errors="replace"))
    except (yaml.YAMLError, Endless):  # told by whoever composes it
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {why(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is over the limits: {error}") from error
