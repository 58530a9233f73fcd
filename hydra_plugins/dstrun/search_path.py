"""Where Hydra looks for configurations besides ``conf/``."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from dstrun.config.grid import HERE


class Sweeps(SearchPathPlugin):
    """Let ``-cn NAME`` find the sweep files that are shipped."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Search ``dstrun.sweeps`` last."""
        search_path.append("dstrun", f"pkg://{HERE}")
