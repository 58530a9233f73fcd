"""Files of others, within bounds: regular, not too long, not too deep, no link. Standard library and PyYAML."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from dstrun.option import ConfigError
from dstrun.trouble import why

YAML_BYTES = 1 << 20
DEPTH = 50
NODES = 100_000
"""Of a YAML file once its aliases are written out."""


class Endless(ValueError):
    """A YAML document contains itself."""


class NoFile(OSError):
    """What stands there is a folder, a pipe, a socket or a device."""


def content(path: Path, limit: int = YAML_BYTES, *, last: bool = False) -> bytes:
    """Read a regular file; a pipe, a socket or a device is refused and not waited for.

    Args:
        path: of the file.
        limit: bytes it may have.
        last: whether of a longer file the last ``limit`` bytes are read, in place of refusing it.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is too long.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise NoFile(f"{path} is no regular file")
        if last:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
        found = file.read(limit + 1)
    if len(found) > limit and not last:
        raise ValueError(f"more than {limit:,} bytes")
    return found


def refuse_link(path: Path) -> None:
    """Refuse a symbolic link where a file or folder of ours is about to be written.

    Raises:
        OSError: there is one.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, through which nothing is written", str(path))


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
                raise Endless("an alias within what it stands for")
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


def check_folder(folder: Path) -> None:
    """Check the YAML files of a folder of options; what is no YAML is left to whoever reads it.

    Raises:
        ConfigError: a file is out of bounds.
    """
    import yaml

    for pattern in ("*.yaml", "*/*.yaml", "*/*/*.yaml"):
        for path in sorted(folder.glob(pattern)):
            try:
                check_yaml(content(path).decode(errors="replace"))
            except (yaml.YAMLError, Endless):  # told by whoever composes it
                continue
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {why(error)}") from error
            except ValueError as error:
                raise ConfigError(f"{path} is out of bounds: {error}") from error
