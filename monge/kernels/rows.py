"""Row scans of the assignment kernels, as numba intrinsics that emit LLVM vectors.

A scan reads one row of a C-contiguous cost matrix once and computes the reduced costs `scale * cost[row, j] -
prices[j]`, in the precision of the prices. A vector is 64 bytes wide; LLVM splits it on processors with narrower
vectors. The last vector of a row is masked.
"""

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _mangled(kind):
    return f"v{kind.count}{ {'float': 'f32', 'double': 'f64', 'i32': 'i32'}[str(kind.element)] }"


class _Vectors:
    """Emit code on vectors of the prices' precision, `lanes` wide."""

    def __init__(self, context, builder, price):
        self.context, self.b = context, builder
        self.real = context.get_value_type(price)
        self.lanes = 512 // price.bitwidth
        self.reals, self.ints = ir.VectorType(self.real, self.lanes), ir.VectorType(_I32, self.lanes)
        self.infinity = ir.Constant(self.reals, [float("inf")] * self.lanes)
        self.iota = ir.Constant(self.ints, list(range(self.lanes)))

    def splat(self, value, kind):
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(self.ints, [0] * self.lanes))

    def columns(self, j):
        return self.b.add(self.splat(self.b.trunc(j, _I32), self.ints), self.iota)

    def load(self, pointer, element, mask):
        """Load lanes at `pointer`; those outside `mask` are zero. `mask` None means all."""
        kind = ir.VectorType(element, self.lanes)
        pointer = self.b.bitcast(pointer, kind.as_pointer())
        align = 8 if element == ir.DoubleType() else 4
        if mask is None:
            return self.b.load(pointer, align=align)
        signature = ir.FunctionType(kind, [pointer.type, _I32, mask.type, kind])
        load = cgutils.get_or_insert_function(self.b.module, signature, f"llvm.masked.load.{_mangled(kind)}.p0")
        return self.b.call(load, [pointer, _I32(align), mask, ir.Constant(kind, None)])

    def store(self, value, pointer, mask):
        kind, align = value.type, 8 if value.type.element == ir.DoubleType() else 4
        pointer = self.b.bitcast(pointer, kind.as_pointer())
        if mask is None:
            self.b.store(value, pointer, align=align)
        else:
            signature = ir.FunctionType(ir.VoidType(), [kind, pointer.type, _I32, mask.type])
            store = cgutils.get_or_insert_function(self.b.module, signature, f"llvm.masked.store.{_mangled(kind)}.p0")
            self.b.call(store, [value, pointer, _I32(align), mask])

    def reduced(self, cost, prices, scale, j, mask):
        """scale * cost[j] - prices[j]. Scaling by a power of two does not round, so fusing is harmless."""
        c = self.load(self.b.gep(cost, [j]), cost.type.pointee, mask)
        if c.type != self.reals:
            c = self.b.fpext(c, self.reals)
        return self.b.fsub(
            self.b.fmul(c, scale, flags=("contract",)),
            self.load(self.b.gep(prices, [j]), self.real, mask),
            flags=("contract",),
        )

    def lesser(self, x, y):
        return self.b.select(self.b.fcmp_ordered("<", x, y), x, y)

    def greater(self, x, y):
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def least(self, x):
        """The minimum over the lanes of x."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            none = ir.Constant(x.type, ir.Undefined)
            low, high = (
                self.b.shuffle_vector(
                    x, none, ir.Constant(ir.VectorType(_I32, lanes), list(range(start, start + lanes)))
                )
                for start in (0, lanes)
            )
            x = self.lesser(low, high)
        return self.b.extract_element(x, _I32(0))

    def each(self, n, unroll, step):
        """Call step(j, mask, k) for each block of lanes that starts at column j; k is the accumulator to use."""
        wide = self.lanes * unroll
        unrolled, blocks = (self.b.and_(n, _I64(-size)) for size in (wide, self.lanes))
        with cgutils.for_range_slice(self.b, _I64(0), unrolled, _I64(wide), _I64) as (j, _):
            for k in range(unroll):
                step(self.b.add(j, _I64(k * self.lanes)), None, k)
        with cgutils.for_range_slice(self.b, unrolled, blocks, _I64(self.lanes), _I64) as (j, _):
            step(j, None, 0)
        with self.b.if_then(self.b.icmp_signed("<", blocks, n)):
            rest = self.splat(self.b.trunc(n, _I32), self.ints)
            step(blocks, self.b.icmp_signed("<", self.columns(blocks), rest), 0)


def _array(context, builder, kind, value):
    array = context.make_array(kind)(context, builder, value)
    return array.data, cgutils.unpack_tuple(builder, array.shape)


def _least(v, values, starts):
    """Return (minimum over both accumulators and all lanes, its column, lane-wise minimum, mask of the lanes that attain the
    overall minimum, that mask as an integer).

    `starts` holds, for each lane, the first column of the block in which its minimum lies.
    """
    a, a2 = v.b.load(values[0]), v.b.load(values[1])
    less = v.b.fcmp_ordered("<", a2, a)
    a = v.b.select(less, a2, a)
    columns = v.b.add(v.b.select(less, v.b.load(starts[1]), v.b.load(starts[0])), v.iota)
    least = v.least(a)
    attaining = v.b.fcmp_ordered("==", a, v.splat(least, v.reals))
    bits = v.b.bitcast(attaining, ir.IntType(v.lanes))
    lane = v.b.cttz(bits, ir.IntType(1)(0))
    column = v.b.extract_element(columns, v.b.and_(v.b.zext(lane, _I32), _I32(v.lanes - 1)))
    return least, v.b.sext(column, _I64), a, attaining, bits


def _emitted(function) -> Callable:
    return intrinsic(function)


@_emitted
def two_smallest(typing, cost, row, prices, scale):
    """Return (smallest, its column, second smallest) of the row's reduced costs; ties count twice."""
    price = prices.dtype
    signature = types.Tuple((price, types.int64, price))(cost, types.int64, prices, price)

    def generate(context, b, sig, args):
        v, unroll = _Vectors(context, b, price), 2
        data, _ = _array(context, b, cost, args[0])
        prices_at, (n,) = _array(context, b, prices, args[2])
        cost_at, scales = b.gep(data, [b.mul(args[1], n)]), v.splat(args[3], v.reals)
        smallest = [cgutils.alloca_once_value(b, v.infinity) for _ in range(unroll)]
        seconds = [cgutils.alloca_once_value(b, v.infinity) for _ in range(unroll)]
        starts = [cgutils.alloca_once_value(b, ir.Constant(v.ints, None)) for _ in range(unroll)]

        def step(j, mask, k):
            h = v.reduced(cost_at, prices_at, scales, j, mask)
            if mask is not None:
                h = b.select(mask, h, v.infinity)
            a = b.load(smallest[k])
            less = b.fcmp_ordered("<", h, a)
            b.store(v.lesser(v.greater(h, a), b.load(seconds[k])), seconds[k])
            b.store(b.select(less, h, a), smallest[k])
            b.store(b.select(less, v.splat(b.trunc(j, _I32), v.ints), b.load(starts[k])), starts[k])

        v.each(n, unroll, step)
        second = v.lesser(
            v.lesser(b.load(seconds[0]), b.load(seconds[1])), v.greater(b.load(smallest[0]), b.load(smallest[1]))
        )
        least, column, a, attaining, bits = _least(v, smallest, starts)
        several = b.icmp_unsigned("!=", b.and_(bits, b.sub(bits, bits.type(1))), bits.type(0))
        second = b.select(several, least, v.least(b.select(attaining, second, a)))
        return context.make_tuple(b, sig.return_type, [least, column, second])

    return signature, generate


@_emitted
def relax(typing, cost, row, prices, scale, offset, distance, parent):
    """Lower distance[j] to the reduced cost - offset, if smaller, with parent[j] = row; return (minimum, its column)."""
    price = prices.dtype
    signature = types.Tuple((price, types.int64))(cost, types.int64, prices, price, price, distance, parent)

    def generate(context, b, sig, args):
        v, unroll = _Vectors(context, b, price), 2
        data, _ = _array(context, b, cost, args[0])
        prices_at, (n,) = _array(context, b, prices, args[2])
        distance_at, _ = _array(context, b, distance, args[5])
        parent_at, _ = _array(context, b, parent, args[6])
        cost_at, scales, offsets = (
            b.gep(data, [b.mul(args[1], n)]),
            v.splat(args[3], v.reals),
            v.splat(args[4], v.reals),
        )
        rows = v.splat(b.trunc(args[1], _I32), v.ints)
        # LLVM folds load, select and store of the parents into a masked store, which is fast with AVX-512 but 8 times
        # slower than a plain store with AVX2 on AMD; the store of the distances in between prevents that.
        masked = "+avx512f" in context.codegen().magic_tuple()[2]
        smallest = [cgutils.alloca_once_value(b, v.infinity) for _ in range(unroll)]
        starts = [cgutils.alloca_once_value(b, ir.Constant(v.ints, None)) for _ in range(unroll)]

        def step(j, mask, k):
            h = b.fsub(v.reduced(cost_at, prices_at, scales, j, mask), offsets)
            d_at, p_at = b.gep(distance_at, [j]), b.gep(parent_at, [j])
            d = v.load(d_at, v.real, mask)
            p = None if masked else v.load(p_at, _I32, mask)
            less = b.fcmp_ordered("<", h, d)
            d = b.select(less, h, d)
            v.store(d, d_at, mask)
            v.store(b.select(less, rows, p or v.load(p_at, _I32, mask)), p_at, mask)
            if mask is not None:
                d = b.select(mask, d, v.infinity)
            a = b.load(smallest[k])
            less = b.fcmp_ordered("<", d, a)
            b.store(b.select(less, d, a), smallest[k])
            b.store(b.select(less, v.splat(b.trunc(j, _I32), v.ints), b.load(starts[k])), starts[k])

        v.each(n, unroll, step)
        least, column, *_ = _least(v, smallest, starts)
        return context.make_tuple(b, sig.return_type, [least, column])

    return signature, generate
