"""What a criterion may look at in one small layer, without a pass through it."""

import pytest
import torch

from dstrun.layer.geometry import ConvGeometry, LinearGeometry
from dstrun.layer.growth import GrowthContext


@pytest.fixture
def context():
    """Make the context of a linear layer, or of a grouped 1 x 1 convolution, with some positions blocked."""

    def context(shape, blocked=(), groups=1, active=None, generator=None, x=None, delta=None):
        geometry = (
            LinearGeometry(shape) if groups == 1 else ConvGeometry((*shape, 1, 1), groups, (1, 1), (0, 0), (1, 1))
        )
        return GrowthContext(
            geometry,
            len(blocked) if active is None else active,
            torch.tensor(sorted(blocked), dtype=torch.int64),
            limit=100,
            generator=torch.Generator().manual_seed(0) if generator is None else generator,
            x=x,
            delta=delta,
        )

    return context
