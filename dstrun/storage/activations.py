"""What training saves of activations for the backward pass: ``activations=`` of a run.

PyTorch keeps what each operation asks for (``full``). The other kinds replace some operations by ones that ask for less
(``operations``), and look at all that is still saved (``torch.autograd.graph.saved_tensors_hooks``): a tensor that two
operations save is kept once, and one that an operation before it can make again is not kept at all.

- ``lean``: the same numbers, bit for bit. Signs of rectified values and dropped positions are bits, positions of maxima
  bytes. What batch or layer normalization, a pointwise function, rectification or dropout make of something that is
  kept anyway is made again in the backward pass, by the same operation.
- ``bf16``, ``fp16``: the same, and what is kept is rounded to nearest in 16 bits. In fp16 what is beyond 65,504 becomes
  infinite: then so do gradients, and the run ends as one that diverged.
- ``int8``, ``int4``: blocks of 256 numbers of 8 or 4 bits each, rounded at random so that the mean is right (ActNN,
  Chen et al. 2021). Signs, dropped positions, positions of maxima and statistics stay exact.

What is kept rounded is used linearly by convolutions, linear layers and products, by the gradients of normalization's
parameters, and where normalized and rectified values are made again (``sign * (scale * x + shift)`` with all but x
exact). Roundings of different tensors are independent, so these gradients are unbiased with ``int8`` and ``int4``. Not
linear, and so biased: the input gradient of normalization, by ``-weight * inverse deviation / M * variance of the
rounding * output gradient``, M being the numbers that share statistics; the derivatives of GELU, SiLU and their like,
softmax and attention. Their results, too, are kept in blocks and not made again from rounded inputs.

Weights, buffers, indices, logits and loss stay as they are, and so do small tensors and statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode

from dstrun.storage.form import encode
from dstrun.storage.held import Again, Coded, Rounded, Source, View, Whole, is_dense
from dstrun.storage.operations import OPERATIONS, WITHIN
from dstrun.system.stream import stream

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEVELS = {"int8": 255, "int4": 15}
SMALL = 2048
"""Numbers up to which a tensor stays as it is: statistics and biases among others, which are next to nothing."""
WEIGHTED = {
    *(functional.linear, functional.conv1d, functional.conv2d, functional.conv3d),
    *(functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
}
"""Functions whose second argument is a weight."""
BESIDE = 16
"""How many times larger an operation's first input is than what it saves beside: statistics, sums of exponentials."""


class Kept:
    """Keeps activations of a network's training passes in one of the forms above.

    Args:
        kind: ``full``, ``lean``, ``bf16``, ``fp16``, ``int8`` or ``int4``.
        seed: of the run.
        model: the network, whose parameters and buffers are none.
        rank: of this process, where several train: each has noise of its own.

    Attributes:
        nbytes: what the largest forward pass of the last step kept, each storage once; 0 with ``full``.
    """

    def __init__(self, kind: str, seed: int, model: nn.Module, rank: int = 0) -> None:
        self.kind, self.model = kind, model
        self.nbytes = 0
        self._seed, self._rank = seed, rank
        self._at: tuple[int, str | int] | None = None
        self._drawn = 0

    @contextmanager
    def forward(self, step: int, part: str | int = 0) -> Iterator[None]:
        """Enter a forward pass, or a piece of one that the backward pass runs again.

        Noise is drawn by step and part; where both are as before it goes on, as no two pieces may have the same.

        Args:
            step: of the run.
            part: of the step: which microbatch, or what else is passed for its gradients.
        """
        if self.kind == "full":
            yield
            return
        if self._at != (step, part):
            if self._at is None or self._at[0] != step:
                self.nbytes = 0
            self._at, self._drawn = (step, part), 0
        here = Pass(self)
        hooks = (
            register_module_forward_pre_hook(here.enter),
            register_module_forward_hook(here.leave, always_call=True),
        )
        try:
            with saved_tensors_hooks(here.pack, unpack), _Replaced(here):
                yield
        finally:
            for hook in hooks:
                hook.remove()
            self.nbytes = max(self.nbytes, here.nbytes)
            here.forget()

    def source(self, flat: Tensor) -> Source:
        """Return the source that keeps the numbers of a stretch of memory: (L,)."""
        if self.kind in LEVELS:
            self._drawn += 1
            assert self._at is not None
            seed = stream(self._seed, "rounding", *self._at, self._rank, self._drawn)
            return Coded(encode(flat, LEVELS[self.kind], seed))
        if self.kind in TYPES and flat.element_size() > TYPES[self.kind].itemsize:
            return Rounded(flat, TYPES[self.kind])
        return Whole(flat)


def unpack(packed: Tensor | View) -> Tensor:
    """Return what stands for a tensor that was saved."""
    return packed.tensor() if isinstance(packed, View) else packed


class Pass:
    """One forward pass: what it has saved, and what can be made again.

    A storage is known by its address, which stays its own while the pass has a weak reference to it.

    Attributes:
        exact: whether what is kept has lost nothing.
        blocks: whether numbers are kept in blocks, so that only what is linear in them may be made again.
        nbytes: what is kept so far.
    """

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.exact = kept.kind == "lean"
        self.blocks = kept.kind in LEVELS
        self.nbytes = 0
        self._known = {t.untyped_storage()._cdata for t in (*kept.model.parameters(), *kept.model.buffers())}
        self._seen: dict[int, tuple[StorageWeakRef, dict[tuple[Any, ...], View]]] = {}
        self._counted: set[int] = set()
        self._operands: list[Tensor] = []
        self._weighted = False
        self._parametrizing = 0

    def forget(self) -> None:
        """Drop what only this pass holds; what was saved may live as long as it is needed."""
        self._seen.clear()

    def enter(self, module: nn.Module, _inputs: Any) -> None:
        """Leave alone what weights are computed from."""
        self._parametrizing += isinstance(module, ParametrizationList)

    def leave(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        """Mind what is saved again."""
        self._parametrizing -= isinstance(module, ParametrizationList)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of PyTorch, or what keeps less in its place."""
        if self._parametrizing or not (torch.is_grad_enabled() or function in WITHIN):
            return function(*args, **kwargs)
        instead = OPERATIONS.get(function)
        self._operands = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        self._weighted = function in WEIGHTED
        try:
            return instead(self, function, *args, **kwargs) if instead else function(*args, **kwargs)
        finally:
            self._operands, self._weighted = [], False

    def pack(self, tensor: Tensor) -> Tensor | View:
        """Return what is kept of a tensor that an operation saves."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            tensor = tensor.detach()
            if tensor.layout != torch.strided or tensor.untyped_storage()._cdata in self._known:
                return tensor
            if not self._is_activation(tensor):
                self._count(tensor)
                return tensor
            return self.find(tensor) or self._keep(tensor)

    def find(self, tensor: Tensor) -> View | None:
        """Return what is kept of a tensor, where it is, or can be made again."""
        _, views = self._seen.get(tensor.untyped_storage()._cdata, (None, {}))
        view = views.get(_place(tensor))
        return View(view.source, tuple(tensor.shape), tensor.stride()) if view and is_dense(tensor) else view

    def offer(self, result: Tensor, parent: View, function: Callable[[Tensor], Tensor]) -> None:
        """Offer to make an operation's result again, by a function of what is kept of its input."""
        if is_dense(result):
            self._remember(result, View(Again(parent, function, result), tuple(result.shape), result.stride()))

    def _is_activation(self, tensor: Tensor) -> bool:
        """Return whether what an operation saves is an activation, and large enough to do anything about."""
        if self._parametrizing or not tensor.is_floating_point() or tensor.numel() <= SMALL:
            return False
        if tensor.untyped_storage().nbytes() < tensor.nbytes:  # expanded
            return False
        if not self._operands:
            return True
        if tensor.numel() * BESIDE <= self._operands[0].numel():
            return False
        if not self._weighted or _same_memory(tensor, self._operands[0]):
            return True
        weight = self._operands[1].shape  # computed from a parameter: by autocast, or a parametrization
        return tensor.shape not in (weight, weight[::-1])

    def _keep(self, tensor: Tensor) -> View:
        laid_out = tensor
        if not self.exact and not is_dense(tensor):  # as of queries, keys and values that lie in one piece
            laid_out = torch.empty_like(tensor).copy_(tensor)
        dense = is_dense(laid_out)
        source = self.kept.source(laid_out.as_strided((laid_out.numel(),), (1,)) if dense else laid_out)
        if isinstance(source, Whole):
            self._count(laid_out)
        else:
            self.nbytes += source.nbytes
        view = View(source, tuple(laid_out.shape), laid_out.stride())
        self._remember(tensor, view)
        return view

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._counted:
            self._counted.add(storage._cdata)
            self.nbytes += storage.nbytes()

    def _remember(self, tensor: Tensor, view: View) -> None:
        storage = tensor.untyped_storage()
        _, views = self._seen.setdefault(storage._cdata, (StorageWeakRef(storage), {}))
        views[_place(tensor)] = view


class _Replaced(TorchFunctionMode):
    """Hands every function of PyTorch that is called inside to a pass."""

    def __init__(self, here: Pass) -> None:
        super().__init__()
        self._here = here

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._here.call(func, args, kwargs or {})


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return which numbers of a storage a tensor has, in which version; of one without gaps, whatever its shape."""
    shape = tensor.numel() if is_dense(tensor) else (tensor.shape, tensor.stride())
    return tensor.dtype, tensor.storage_offset(), shape, tensor._version


def _same_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata
