"""Networks not written for dstrun: any ``nn.Module``, or function that returns one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from torch import nn

from dstrun.config.option import option
from dstrun.config.plain import CHANNELS, CLASSES, SIZE, call
from dstrun.config.written import arguments
from dstrun.system.trouble import ConfigError


@option
class Plain:
    """A network called with its settings, and with what it takes of the data set by one of the usual names.

    ``num_classes`` or ``classes`` gets the number of classes, ``in_channels`` or ``in_chans`` that of channels, and
    ``image_size`` or ``img_size`` the height of square images, unless a setting says it. What takes any name
    (``**kwargs``) gets ``num_classes``.
    """

    part: Mapping[str, Any] = field(hash=False)

    def build(self, image: tuple[int, int, int], classes: int) -> nn.Module:
        """Build the network for images of shape (C, H, W).

        Raises:
            ConfigError: it cannot be called so, or gives no network.
        """
        target, taken = str(self.part["_target_"]), arguments(str(self.part["_target_"]))
        square = {SIZE: image[1]} if image[1] == image[2] else {}
        values = {CLASSES: classes, CHANNELS: image[0], **square}
        filled = {name: value for keys, value in values.items() for name in keys if name in taken.defaults}
        if taken.more and not {*CLASSES} & {*filled, *self.part}:
            filled["num_classes"] = classes
        made = call(self.part, **filled)
        if not isinstance(made, nn.Module):
            raise ConfigError(f"model: {target} returns {type(made).__name__}: it must return a torch.nn.Module")
        return made
