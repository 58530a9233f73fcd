"""A network as a user might write it, which does not survive being built: for ``--config-dir``."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

from torch import nn

from dstrun.config.option import OneOf, option

YAML = "_target_: faulty.Faulty\nhow: none\n"


@option
class Faulty:
    """A layer whose process raises, is killed, or ends; ``once`` raises only at the first attempt.

    ``worse`` raises at the first attempt and is killed at the next. ``drop`` survives, and has two layers with dropout.
    """

    how: Annotated[str, OneOf("none", "raise", "kill", "exit", "once", "worse", "drop")] = "none"
    width: float = 1.0

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network, or not."""
        if self.how == "raise":
            raise RuntimeError("the network cannot be built")
        if self.how == "kill" or (self.how == "worse" and Path("tried").exists()):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(3)
        if self.how in ("once", "worse") and not Path("tried").exists():
            Path("tried").touch()
            raise RuntimeError("the first attempt fails")
        if self.how == "drop":
            size = image[0] * image[1] * image[2]
            return nn.Sequential(nn.Flatten(), nn.Linear(size, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, classes))
        return nn.Sequential(nn.Flatten(), nn.Linear(image[0] * image[1] * image[2], classes))
