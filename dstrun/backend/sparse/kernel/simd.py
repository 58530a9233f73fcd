"""Vectors in registers for numba: kernels keep a tile of accumulators there, as no loop over an array can.

A ``Tile`` is an LLVM vector of float32 of any length; LLVM splits it into the registers that the processor has, so the
same kernel runs with AVX-512, AVX2 and NEON. Arrays are one-dimensional and hold float32, or bfloat16 as its bits in
uint16; all arithmetic is float32 with fused multiply-adds and without fast-math: NaN and infinity behave.
"""

# pyright: reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from dstrun.system.compiled import compiled

LANES = (128, 64, 16)
"""The tiles that kernels use: 128 lanes are eight registers of 512 bits, or sixteen of 256."""

LINE = 64
"""Bytes of a cache line."""

PAST = 1 << 22
"""Arrays of more bytes are written past the caches: they would not stay there until they are read."""

NARROW = LANES[-1]
"""Tiles of this many lanes may be filled in part, which takes the lanes that are left over."""


class Tile(types.Type):
    """The numba type of a vector of ``lanes`` float32."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(f"Tile({lanes})")

    @property
    def ir(self) -> ir.VectorType:
        """Its LLVM type."""
        return ir.VectorType(ir.FloatType(), self.lanes)


@register_model(Tile)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, tile.ir)


def _call(builder: Any, name: str, kind: ir.VectorType, *args: Any) -> Any:
    """Call an LLVM intrinsic whose arguments and result are all of one type."""
    function = ir.FunctionType(kind, [kind] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def _splat(builder: Any, kind: ir.VectorType, scalar: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


def _address(context: Any, builder: Any, array: types.Array, value: Any, index: Any, kind: ir.Type) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _storage(array: types.Array, tile: Tile) -> ir.VectorType:
    """Return the LLVM type of a tile in memory: the array's."""
    element = ir.FloatType() if array.dtype == types.float32 else ir.IntType(16)
    return ir.VectorType(element, tile.lanes)


def _widen(builder: Any, raw: Any, tile: Tile) -> Any:
    """Turn what was loaded into float32; bfloat16 is the upper half of it."""
    if raw.type.element == ir.FloatType():
        return raw
    wide = ir.VectorType(ir.IntType(32), tile.lanes)
    return builder.bitcast(builder.shl(builder.zext(raw, wide), ir.Constant(wide, [16] * tile.lanes)), tile.ir)


def _narrow(builder: Any, value: Any, storage: ir.VectorType) -> Any:
    """Round to what is stored: bfloat16 to nearest, ties to even; NaN stays NaN."""
    if storage.element == ir.FloatType():
        return value
    lanes = storage.count
    wide = ir.VectorType(ir.IntType(32), lanes)

    def constant(number: int) -> Any:
        return ir.Constant(wide, [number] * lanes)

    bits = builder.bitcast(value, wide)
    odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, constant(0x7FFF))), constant(16))
    unordered = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(unordered, constant(0x7FC0), rounded), storage)


def _masked(builder: Any, what: str, storage: ir.VectorType, before: list, after: list, count: Any) -> Any:
    """Load or store the first ``count`` elements of a narrow tile, and touch no memory beyond them."""
    wide = ir.VectorType(ir.IntType(64), NARROW)
    lanes = ir.Constant(wide, list(range(NARROW)))
    mask = builder.icmp_signed("<", lanes, _splat(builder, wide, count))
    args = [*before, ir.Constant(ir.IntType(32), 2), mask, *after]
    returns = storage if what == "load" else ir.VoidType()
    element = "f32" if storage.element == ir.FloatType() else "i16"
    name = f"llvm.masked.{what}.v{NARROW}{element}.p0"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(returns, [arg.type for arg in args]), name
    )
    return builder.call(function, args)


@intrinsic
def fill(_typing, scalar, like):
    """Return a tile like ``like`` whose lanes are all ``scalar``."""

    def generate(_context, builder, _signature, args):
        return _splat(builder, like.ir, args[0])

    return like(types.float32, like), generate


def _zero(lanes: int) -> Any:
    """Make the function of compiled code that gives a tile of so many lanes, all zero."""
    kind = Tile(lanes)

    @intrinsic
    def zero(_typing):
        return kind(), lambda _context, _builder, _signature, _args: ir.Constant(kind.ir, [0.0] * lanes)

    return zero


zero128, zero64, zero16 = (_zero(lanes) for lanes in LANES)


@intrinsic
def read(_typing, array, index, count, like):
    """Load ``array[index : index + lanes]`` into a tile like ``like``; one of 16 lanes takes ``count``, the rest 0."""

    def generate(context, builder, signature, args):
        storage = _storage(signature.args[0], like)
        address = _address(context, builder, signature.args[0], args[0], args[1], storage)
        if like.lanes > NARROW:
            raw = builder.load(address)
            raw.align = 2
        else:
            raw = _masked(builder, "load", storage, [address], [ir.Constant(storage, [0] * NARROW)], args[2])
        return _widen(builder, raw, like)

    return like(array, types.intp, types.intp, like), generate


@intrinsic
def write(_typing, array, index, count, tile):
    """Store a tile at ``array[index : index + lanes]``; of one of 16 lanes the first ``count``."""

    def generate(context, builder, signature, args):
        storage = _storage(signature.args[0], tile)
        address = _address(context, builder, signature.args[0], args[0], args[1], storage)
        value = _narrow(builder, args[3], storage)
        if tile.lanes > NARROW:
            builder.store(value, address).align = 2
        else:
            _masked(builder, "store", storage, [value, address], [], args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile), generate


def _past(builder: Any, store: Any) -> None:
    """Make a store write past the caches."""
    store.align = LINE
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))


@intrinsic
def write_past(_typing, array, index, tile):
    """Store a tile at ``array[index : index + lanes]`` past the caches; it must begin and end with a cache line.

    Such stores are not ordered with those that follow: ``settle`` before other threads read.
    """

    def generate(context, builder, signature, args):
        storage = _storage(signature.args[0], tile)
        address = _address(context, builder, signature.args[0], args[0], args[1], storage)
        store = builder.store(_narrow(builder, args[2], storage), address)
        _past(builder, store)
        return context.get_dummy_value()

    return types.void(array, types.intp, tile), generate


@intrinsic
def prefetch(_typing, array, index, like):
    """Ask for the lines of ``array[index : index + lanes]``, a tile like ``like``: it is read soon."""

    def generate(context, builder, signature, args):
        storage = _storage(signature.args[0], like)
        byte, number = ir.IntType(8), ir.IntType(32)
        address = _address(context, builder, signature.args[0], args[0], args[1], byte)
        kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        size = like.lanes * (4 if storage.element == ir.FloatType() else 2)
        for line in range(0, size, LINE):
            here = builder.gep(address, [ir.Constant(ir.IntType(64), line)])
            builder.call(function, [here, *(ir.Constant(number, hint) for hint in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp, like), generate


@intrinsic
def add_scaled(_typing, tile, scalar, other):
    """Return ``tile + scalar * other``, fused where the processor can."""

    def generate(_context, builder, _signature, args):
        return _call(
            builder, f"llvm.fmuladd.v{tile.lanes}f32", tile.ir, _splat(builder, tile.ir, args[1]), args[2], args[0]
        )

    return tile(tile, types.float32, tile), generate


@intrinsic
def add_product(_typing, tile, one, other):
    """Return ``tile + one * other`` elementwise, fused where the processor can."""

    def generate(_context, builder, _signature, args):
        return _call(builder, f"llvm.fmuladd.v{tile.lanes}f32", tile.ir, args[1], args[2], args[0])

    return tile(tile, tile, tile), generate


@intrinsic
def total(_typing, tile):
    """Sum the lanes of a tile pairwise: the same order on every processor."""

    def generate(_context, builder, _signature, args):
        value, count = args[0], tile.lanes
        while count > 1:
            count //= 2
            halves = [
                builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(start, start + count)))
                )
                for start in (0, count)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(tile), generate


@intrinsic
def keep(_typing, tile, count):
    """Return a tile whose lanes from ``count`` on are zero."""

    def generate(_context, builder, _signature, args):
        wide = ir.VectorType(ir.IntType(64), tile.lanes)
        lanes = ir.Constant(wide, list(range(tile.lanes)))
        mask = builder.icmp_signed("<", lanes, _splat(builder, wide, args[1]))
        return builder.select(mask, args[0], ir.Constant(tile.ir, [0.0] * tile.lanes))

    return tile(tile, types.intp), generate


@intrinsic
def rounded(_typing, tile, array):
    """Return a tile as it comes back after it was stored in an array of that type."""

    def generate(_context, builder, signature, args):
        return _widen(builder, _narrow(builder, args[0], _storage(signature.args[1], tile)), tile)

    return tile(tile, array), generate


@intrinsic
def passed(_typing, tile, by):
    """Return a tile whose lanes are zero where another's are zero or less; NaN lets pass, as in PyTorch's ReLU."""

    def generate(_context, builder, _signature, args):
        zero = ir.Constant(tile.ir, [0.0] * tile.lanes)
        return builder.select(builder.fcmp_ordered("<=", args[1], zero), zero, args[0])

    return tile(tile, tile), generate


def _larger(builder: Any, one: Any, two: Any) -> Any:
    """Return where one is larger than two, or NaN, as PyTorch's maximum pooling goes on."""
    return builder.or_(builder.fcmp_ordered(">", one, two), builder.fcmp_unordered("uno", one, one))


@intrinsic
def larger(_typing, one, two):
    """Return the larger of two tiles; the first where it is NaN."""

    def generate(_context, builder, _signature, args):
        return builder.select(_larger(builder, args[0], args[1]), args[0], args[1])

    return one(one, two), generate


@intrinsic
def larger_or(_typing, one, two, this, that):
    """Return ``this`` where ``larger`` returns the first, else ``that``."""

    def generate(_context, builder, _signature, args):
        return builder.select(_larger(builder, args[0], args[1]), args[2], args[3])

    return this(one, two, this, that), generate


@intrinsic
def equal(_typing, one, two, tile):
    """Return a tile whose lanes are zero where two others differ."""

    def generate(_context, builder, _signature, args):
        zero = ir.Constant(tile.ir, [0.0] * tile.lanes)
        return builder.select(builder.fcmp_ordered("==", args[0], args[1]), args[2], zero)

    return tile(one, two, tile), generate


@intrinsic(prefer_literal=True)
def transpose16(_typing, source, at, stride, target, to, pitch, past):
    """Write the transpose of 16 x 16 elements, whose rows are ``stride`` apart, to rows that are ``pitch`` apart.

    ``past`` is a literal: whether to write past the caches, where every row written is a whole cache line.
    """

    def generate(context, builder, signature, args):
        array = signature.args[0]
        kind = _storage(array, Tile(16))
        whole = ir.VectorType(ir.IntType(32), 16)
        halves = [ir.Constant(whole, [half + lane // 2 + lane % 2 * 16 for lane in range(16)]) for half in (0, 8)]

        def address(values, start, step, row):
            index = builder.add(start, builder.mul(step, ir.Constant(ir.IntType(64), row)))
            return _address(context, builder, array, values, index, kind)

        rows = []
        for row in range(16):
            rows.append(builder.load(address(args[0], args[1], args[2], row)))
            rows[-1].align = 2
        for _ in range(4):
            rows = [builder.shuffle_vector(rows[i], rows[i + 8], half) for i in range(8) for half in halves]
        for row in range(16):
            store = builder.store(rows[row], address(args[3], args[4], args[5], row))
            store.align = 2
            if past.literal_value:
                _past(builder, store)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, source, types.intp, types.intp, past), generate


@intrinsic
def settle(_typing):
    """Order what a thread has written past the caches before whatever it does next: others may read it then."""

    def generate(context, builder, _signature, _args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@compiled()
def goes_past(array, step):
    """Return whether ``put`` may write an array past the caches.

    It is large, and begins where a cache line does, as each ``step`` numbers of it do.
    """
    large = array.size * array.itemsize > PAST
    return large and array.ctypes.data % LINE == 0 and step * array.itemsize % LINE == 0


@compiled()
def put(array, index, count, tile, past):
    """Do as ``write``, or, with whole tiles, as ``write_past``, after which a thread has to ``settle``."""
    if past:
        write_past(array, index, tile)
    else:
        write(array, index, count, tile)


@compiled()
def aligned(size):
    """Return ``size`` float32 that begin where a cache line does."""
    room = np.empty(size + LINE // 4, np.float32)
    start = -(room.ctypes.data // 4) % (LINE // 4)
    return room[start : start + size]
