"""A network as a user might write it, which does not survive being built: for ``--config-dir``."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

from torch import Tensor, nn

from dstrun.config.option import OneOf, option

YAML = "_target_: faulty.Faulty\nhow: none\n"


class Waits(nn.Module):
    """Gives what it is given, in evaluation after a while."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        if not self.training and not x.is_meta:
            time.sleep(float(os.environ.get("FAULTY_SECONDS", "0")))
        return x


@option
class Faulty:
    """A layer whose process raises, is killed, or ends; ``once`` raises only at the first attempt.

    ``worse`` raises at the first attempt and is killed at the next. ``drop`` survives, and has two layers with dropout;
    ``slow`` too, and sleeps ``FAULTY_SECONDS`` whenever it is evaluated, so that a run lasts and takes no processor.
    """

    how: Annotated[str, OneOf("none", "raise", "kill", "exit", "once", "worse", "drop", "slow")] = "none"
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
        if self.how in ("drop", "slow"):
            size = image[0] * image[1] * image[2]
            layers = [nn.Flatten(), nn.Linear(size, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, classes)]
            return nn.Sequential(*layers, *([Waits()] if self.how == "slow" else []))
        return nn.Sequential(nn.Flatten(), nn.Linear(image[0] * image[1] * image[2], classes))
