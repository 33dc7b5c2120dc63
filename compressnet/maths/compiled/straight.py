"""Parts of compiled loops without branches, which Python writes down: they compile in no time, however long they are.

Numba takes tens of seconds for a Fourier transform of eight numbers written out in its own language.
"""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from compressnet.maths.compiled.lanes import LANES, everywhere, runs, summed

Function = TypeVar("Function", bound=Callable[..., None])


class Value:
    """A number, an integer or a vector while code is written: what is done to it becomes an instruction."""

    def __init__(self, builder: Any, made: Any) -> None:
        self.builder, self.made = builder, made

    def __add__(self, other: Any) -> "Value":
        return self._with(other, "add")

    def __sub__(self, other: Any) -> "Value":
        return self._with(other, "sub")

    def __mul__(self, other: Any) -> "Value":
        return self._with(other, "mul")

    def __neg__(self) -> "Value":
        return Value(self.builder, self.builder.fneg(self.made))

    def total(self) -> "Value":
        """The sum of a vector; a number as it is."""
        vector = isinstance(self.made.type, ir.VectorType)
        return Value(self.builder, summed(self.builder, self.made)) if vector else self

    def _with(self, other: Any, name: str) -> "Value":
        made = self.made
        if not isinstance(other, Value):
            scalar = made.type.element if isinstance(made.type, ir.VectorType) else made.type
            other = Value(self.builder, ir.Constant(scalar, other))
        theirs = other.made
        if isinstance(made.type, ir.IntType):
            return Value(self.builder, getattr(self.builder, name)(made, theirs))
        if isinstance(made.type, ir.VectorType) and not isinstance(theirs.type, ir.VectorType):
            theirs = everywhere(self.builder, theirs)
        return Value(self.builder, getattr(self.builder, f"f{name}")(made, theirs, flags=("contract",)))


class Memory:
    """A contiguous array while code is written; places are counted through all its dimensions."""

    def __init__(self, context: Any, builder: Any, kind: Any, made: Any) -> None:
        self.builder, self.align = builder, kind.dtype.bitwidth // 8
        self.data = context.make_array(kind)(context, builder, made).data

    def __getitem__(self, place: Value) -> Value:
        """The number there."""
        return Value(self.builder, self.builder.load(self.builder.gep(self.data, [place.made])))

    def lanes(self, place: Value) -> Value:
        """The vector that begins there."""
        vector = ir.VectorType(self.data.type.pointee, LANES)
        return Value(self.builder, self.builder.load(self._at(place, vector), align=self.align))

    def __setitem__(self, place: Value, value: Value) -> None:
        """Put a number or a vector there."""
        self.builder.store(value.made, self._at(place, value.made.type), align=self.align)

    def _at(self, place: Value, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [place.made]), kind.as_pointer())


def transposed(rows: list[Value]) -> list[Value]:
    """Of sixteen vectors: the first numbers of all, the second ones, …"""
    made = [row.made for row in rows]
    for run in (1, 2, 4, 8):
        for row in [row for row in range(LANES) if not row & run]:
            pair = made[row], made[row + run]
            made[row], made[row + run] = (runs(rows[0].builder, *pair, run, late) for late in (0, 1))
    return [Value(rows[0].builder, each) for each in made]


def straight(function: Function) -> Function:
    """A part of loops without branches and results, which compiles in no time however long it is.

    A function of :class:`Value` and :class:`Memory`, for numbers, integers and arrays: Python calls it to write code.
    """

    def part(typing, *kinds):  # type: ignore[no-untyped-def]
        def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
            function(
                *[
                    Memory(context, builder, kind, made) if isinstance(kind, types.Array) else Value(builder, made)
                    for kind, made in zip(given.args, arguments, strict=True)
                ]
            )
            return context.get_dummy_value()

        return types.none(*[types.unliteral(kind) for kind in kinds]), code

    own = signature(function)
    first = Parameter("typing", Parameter.POSITIONAL_OR_KEYWORD)
    vars(part)["__signature__"] = own.replace(parameters=[first, *own.parameters.values()])
    return cast(Function, intrinsic(part))
