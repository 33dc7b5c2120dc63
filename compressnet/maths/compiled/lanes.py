"""Vectors of sixteen numbers as values of compiled loops, for what LLVM does not make of loops over them by itself.

``+``, ``-`` and ``*`` work lane by lane, and of a vector with a number. A processor with narrower registers takes two
or four for a vector; a product that is added to something is rounded once where the processor can do so.
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.core.errors import TypingError
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from compressnet.maths.compiled import LANES


class Lanes(types.Type):
    """Of a type of numbers."""

    def __init__(self, real: Any) -> None:
        self.real = real
        super().__init__(f"Lanes({real})")


@register_default(Lanes)
class _Model(PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.real).get_value_type(), LANES))


def _operator(which: Any, instruction: str) -> None:
    @infer_global(which)
    class _Typing(AbstractTemplate):
        def generic(self, arguments, _):  # type: ignore[no-untyped-def]
            kinds = [each for each in arguments if isinstance(each, Lanes)]
            if len(arguments) == 2 and kinds and all(each in (kinds[0], kinds[0].real) for each in arguments):
                return signature(kinds[0], *arguments)
            return None

    def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
        both = [
            each if isinstance(kind, Lanes) else everywhere(builder, each)
            for kind, each in zip(given.args, arguments, strict=True)
        ]
        return getattr(builder, instruction)(*both, flags=("contract",))

    for pair in ((Lanes, Lanes), (Lanes, types.Float), (types.Float, Lanes)):
        lower_builtin(which, *pair)(code)


for _which, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _operator(_which, _instruction)


def everywhere(builder: Any, number: Any) -> Any:
    """A vector of one number."""
    vector = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def contiguous(*kinds: Any) -> None:
    """Refuse arrays of other layouts, whose strides places do not count."""
    if any(isinstance(kind, types.Array) and kind.layout != "C" for kind in kinds):
        raise TypingError("arrays whose places are counted are contiguous")


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
def load(typing, x, index):  # type: ignore[no-untyped-def]
    """``load(x, index)``: the vector at that place of a contiguous array, counted through all its dimensions."""
    contiguous(x)

    def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
        vector = context.get_value_type(given.return_type)
        place = _place(context, builder, given.args[0], arguments[0], arguments[1], vector)
        return builder.load(place, align=given.args[0].dtype.bitwidth // 8)

    return Lanes(x.dtype)(x, types.intp), code


@intrinsic
def store(typing, x, index, lanes):  # type: ignore[no-untyped-def]
    """``store(x, index, lanes)``: put a vector there."""
    contiguous(x)

    def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
        place = _place(context, builder, given.args[0], arguments[0], arguments[1], arguments[2].type)
        builder.store(arguments[2], place, align=given.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(x, types.intp, lanes), code


@intrinsic
def zeros(typing, x):  # type: ignore[no-untyped-def]
    """``zeros(x)``: a vector of them, of the type of an array's numbers."""

    def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(context.get_value_type(given.return_type), None)

    return Lanes(x.dtype)(x), code


@intrinsic
def total(typing, lanes):  # type: ignore[no-untyped-def]
    """The sum of all numbers of a vector."""

    def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
        return summed(builder, arguments[0])

    return lanes.real(lanes), code


def summed(builder: Any, vector: Any) -> Any:
    """The instruction for it."""
    real = vector.type.element
    name = f"llvm.vector.reduce.fadd.v{LANES}f{32 if isinstance(real, ir.FloatType) else 64}"
    function = ir.FunctionType(real, [real, vector.type])
    sum_of = builder.module.globals.get(name) or ir.Function(builder.module, function, name)
    return builder.call(sum_of, [ir.Constant(real, 0.0), vector], fastmath=("reassoc",))


def runs(builder: Any, first: Any, second: Any, run: int, late: int) -> Any:
    """Runs of so many numbers of two vectors in turn: those that come first in each pair of runs, or those behind."""
    begins = range(late * run, LANES, 2 * run)
    order = [side + begin + lane for begin in begins for side in (0, LANES) for lane in range(run)]
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order))
