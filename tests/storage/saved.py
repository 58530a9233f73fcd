"""What autograd keeps, for tests of what is kept in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def saved_for_backward(besides: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that the forward pass saves for backward, other than the given tensors'."""
    known = {t.untyped_storage()._cdata for t in besides}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved
