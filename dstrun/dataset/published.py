"""Published data sets of small images: found in a folder, or downloaded by torchvision, and decoded once."""

from __future__ import annotations

import http.client
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from dstrun.config.option import expanded, nearest, option
from dstrun.dataset.cache import cached, checksum
from dstrun.dataset.images import Dataset, Images
from dstrun.system.lazy import np
from dstrun.system.trouble import ConfigError

TIMEOUT_S = 10.0
"""How long a download waits for the network to say anything."""

Arrays: TypeAlias = "dict[str, np.ndarray]"


class Source(NamedTuple):
    """Files that hold a data set, and how to decode them."""

    files: list[Path]
    decode: Callable[[], Arrays]


@option
class Published(Dataset):
    """A data set in the folder ``root``; ``None`` is ``$DSTRUN_DATA`` if set, else ``data`` in the current folder.

    With ``root=None`` a missing data set is downloaded, unless ``download`` is false; with a ``root`` only if
    ``download`` is true.
    """

    name: ClassVar[str]

    root: str | None = None
    download: bool | None = None

    def load(self, cache: Path | None = None) -> Images:
        """Load the images, decoded once and then memory-mapped from the cache.

        Args:
            cache: the folder for decoded images; see ``dstrun.dataset.cache.cached``.

        Raises:
            ConfigError: no data set is found or can be downloaded; a file of it is missing, damaged or mislabelled;
                the cache folder cannot be written.
        """
        files, decode = self._source()
        source = checksum(files)
        return self.choose(cached(self.name, source, self.shapes(), decode, cache), source)

    def check(self) -> None:
        """Check that the files are here, or may be downloaded.

        Raises:
            ConfigError: in the words of ``load``.
        """
        self._source(download=False)

    def found(self) -> str | None:
        """Return the checksum of the files where they are; ``None`` where they are not, or not whole."""
        try:
            source = self._here(self._root)
            return checksum(source.files) if source else None
        except ConfigError:
            return None

    @property
    def _root(self) -> Path:
        return Path(expanded(self.root or os.environ.get("DSTRUN_DATA") or "data"))

    def _source(self, download: bool = True) -> Source:
        """Find the data set, or download it where ``download`` says so."""
        root = self._root
        may_download = self.download if self.download is not None else self.root is None
        if not root.is_dir() and not may_download:
            if self.root is None:
                raise ConfigError(
                    f"{root} is not a folder and dataset.download=false: set dataset.root=DIR or $DSTRUN_DATA"
                )
            siblings = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
            raise ConfigError(f"dataset.root={root} is not a folder{nearest(root.name, siblings)}")
        if found := self._here(root):
            return found
        if may_download:
            if download:
                self._download(root)
            return self._downloaded(root)
        raise ConfigError(f"{root} holds no {self.name}: {self._lacks(root)}; dataset.download=true downloads it")

    def _download(self, root: Path) -> None:
        """Download the data set into ``root``; leave nothing behind where that fails."""
        import tarfile

        # A folder that exists already, so that a failure need not remove one it made; on the same disk, so that
        # moving is a rename.
        beside = next(p for p in (root, *root.absolute().parents) if p.is_dir())
        try:
            with _limited(), tempfile.TemporaryDirectory(dir=beside, prefix=".download-") as temporary:
                name = self._fetch(Path(temporary))
                root.mkdir(parents=True, exist_ok=True)
                try:
                    os.rename(Path(temporary, name), root / name)
                except OSError:
                    # Another run that downloaded at the same time was first.
                    if self._here(root) is None:
                        raise
        except (OSError, RuntimeError, http.client.HTTPException, tarfile.TarError) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"{self.name} could not be downloaded into {root} ({reason}): dataset=digits works offline, "
                "dataset.root=DIR uses a copy"
            ) from error

    def _here(self, root: Path) -> Source | None:
        """Find the data set below a folder.

        Raises:
            ConfigError: a part of it is there, and another missing.
        """
        raise NotImplementedError

    def _downloaded(self, root: Path) -> Source:
        """Name the files that a download into ``root`` brings."""
        raise NotImplementedError

    def _fetch(self, folder: Path) -> str:
        """Download into a folder; returns the name there of what is to be moved."""
        raise NotImplementedError

    def _lacks(self, root: Path) -> str:
        """Describe what was looked for."""
        raise NotImplementedError


@contextmanager
def _limited() -> Iterator[None]:
    """Limit what a download may do where torchvision has no setting: stay silent, and write outside its folder."""
    import tarfile

    tar: Any = tarfile.TarFile
    before = socket.getdefaulttimeout(), getattr(tar, "extraction_filter", None)
    socket.setdefaulttimeout(TIMEOUT_S)
    if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on; torchvision 0.26 names none
        tar.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before[0])
        tar.extraction_filter = before[1]
