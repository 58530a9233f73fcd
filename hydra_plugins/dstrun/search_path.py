"""Where Hydra looks for configurations besides ``conf/``."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from dstrun.config.grid import HERE
from dstrun.config.own import SEARCHED


class Folders(SearchPathPlugin):
    """Add the shipped sweep files for ``-cn NAME``, and a user's folders for all overrides."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Search ``dstrun.sweeps`` after ``conf/``, and the folders of ``--config-dir`` last."""
        search_path.append("dstrun", f"pkg://{HERE}")
        for folder in SEARCHED:
            search_path.append("command-line", f"file://{folder}")
