"""Parts of compiled loops without branches, which Python writes down: they compile in no time, however long they are.

Numba takes tens of seconds for a Fourier transform of eight numbers written out in its own language.
"""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, cast

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from compressnet.maths.compiled import LANES
from compressnet.maths.compiled.lanes import contiguous, everywhere, runs, summed


class Value:
    """A number or a vector, of reals or integers, while code is written: what is done to it becomes an instruction."""

    def __init__(self, builder: Any, made: Any, flags: tuple[str, ...]) -> None:
        self.builder, self.made, self.flags = builder, made, flags

    def __add__(self, other: Any) -> "Value":
        return self._with(other, "add")

    def __sub__(self, other: Any) -> "Value":
        return self._with(other, "sub")

    def __mul__(self, other: Any) -> "Value":
        return self._with(other, "mul")

    def __rshift__(self, other: Any) -> "Value":
        return self._with(other, "lshr")

    def __and__(self, other: Any) -> "Value":
        return self._with(other, "and_")

    def __neg__(self) -> "Value":
        return self.like(self.builder.fneg(self.made))

    def backwards(self) -> "Value":
        """A vector from its end."""
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(reversed(range(LANES))))
        return self.like(self.builder.shuffle_vector(self.made, self.made, order))

    def every_other(self, behind: "Value") -> "tuple[Value, Value]":
        """The numbers of two vectors at even places, and those at odd ones."""
        kind = ir.VectorType(ir.IntType(32), LANES)
        masks = [ir.Constant(kind, list(range(first, 2 * LANES, 2))) for first in (0, 1)]
        even, odd = [self.like(self.builder.shuffle_vector(self.made, behind.made, mask)) for mask in masks]
        return even, odd

    def total(self) -> "Value":
        """The sum of a vector; a number as it is."""
        return self.like(summed(self.builder, self.made)) if isinstance(self.made.type, ir.VectorType) else self

    def like(self, made: Any) -> "Value":
        """What an instruction has made, under the same rules."""
        return Value(self.builder, made, self.flags)

    def _with(self, other: Any, name: str) -> "Value":
        scalar = _scalar(self.made.type)
        theirs = other.made if isinstance(other, Value) else ir.Constant(scalar, other)
        if isinstance(self.made.type, ir.VectorType) and not isinstance(theirs.type, ir.VectorType):
            theirs = everywhere(self.builder, theirs)
        if isinstance(scalar, ir.IntType):
            return self.like(getattr(self.builder, name)(self.made, theirs))
        return self.like(getattr(self.builder, f"f{name}")(self.made, theirs, flags=self.flags))


def _scalar(kind: Any) -> Any:
    return kind.element if isinstance(kind, ir.VectorType) else kind


class Memory:
    """A contiguous array while code is written; places are counted through all its dimensions."""

    def __init__(self, context: Any, builder: Any, kind: Any, made: Any, flags: tuple[str, ...]) -> None:
        self.builder, self.align, self.flags = builder, kind.dtype.bitwidth // 8, flags
        self.data = context.make_array(kind)(context, builder, made).data

    def __getitem__(self, place: Value) -> Value:
        """The number there."""
        return self._value(self.builder.load(self.builder.gep(self.data, [place.made])))

    def __setitem__(self, place: Value, value: Value) -> None:
        """Put a number or a vector there."""
        self.builder.store(value.made, self._at(place, value.made.type), align=self.align)

    def lanes(self, place: Value) -> Value:
        """The vector that begins there."""
        return self._value(self.builder.load(self._at(place, self._vector), align=self.align))

    def gathered(self, places: Value) -> Value:
        """The numbers at sixteen places."""
        numbers = ir.Constant(self._vector, ir.Undefined)
        for lane in range(LANES):
            at = ir.Constant(ir.IntType(32), lane)
            place = self.builder.zext(self.builder.extract_element(places.made, at), ir.IntType(64))
            numbers = self.builder.insert_element(numbers, self.builder.load(self.builder.gep(self.data, [place])), at)
        return self._value(numbers)

    def real(self, integers: Value) -> Value:
        """Integers as numbers of this array's type."""
        return self._value(self.builder.sitofp(integers.made, self._vector))

    @property
    def _vector(self) -> Any:
        return ir.VectorType(self.data.type.pointee, LANES)

    def _value(self, made: Any) -> Value:
        return Value(self.builder, made, self.flags)

    def _at(self, place: Value, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [place.made]), kind.as_pointer())


def steps(place: Value, distance: Any, count: int) -> list[Value]:
    """So many places at equal distances."""
    places = [place]
    while len(places) < count:
        places.append(places[-1] + distance)
    return places


def transposed(rows: list[Value]) -> list[Value]:
    """Of sixteen vectors: the first numbers of all, the second ones, …"""
    made = [row.made for row in rows]
    for run in (1, 2, 4, 8):
        for row in [row for row in range(LANES) if not row & run]:
            pair = made[row], made[row + run]
            made[row], made[row + run] = (runs(rows[0].builder, *pair, run, late) for late in (0, 1))
    return [rows[0].like(each) for each in made]


def straight(function: Callable[..., None], rounded: bool = False) -> Callable[..., None]:
    """A part of loops without branches and results: a function of values and memory, which Python calls to write code.

    Args:
        function: of :class:`Value` and :class:`Memory`, for numbers, integers and arrays.
        rounded: whether each operation rounds, which makes the same bits of the same numbers in other loops too; else a
            product that is added to something need not.
    """
    flags = () if rounded else ("contract",)

    def part(typing, *kinds):  # type: ignore[no-untyped-def]
        contiguous(*kinds)

        def code(context, builder, given, arguments):  # type: ignore[no-untyped-def]
            values = [
                Memory(context, builder, kind, made, flags)
                if isinstance(kind, types.Array)
                else Value(builder, made, flags)
                for kind, made in zip(given.args, arguments, strict=True)
            ]
            function(*values)
            return context.get_dummy_value()

        return types.none(*[types.unliteral(kind) for kind in kinds]), code

    own = signature(function)
    first = Parameter("typing", Parameter.POSITIONAL_OR_KEYWORD)
    vars(part)["__signature__"] = own.replace(parameters=[first, *own.parameters.values()])
    return cast(Callable[..., None], intrinsic(part))


@straight
def transpose(out: Memory, to: Value, rise: Value, x: Memory, start: Value, step: Value) -> None:
    """``out[to + rise · c + r] = x[start + step · r + c]`` for r and c below 16."""
    rows = transposed([x.lanes(place) for place in steps(start, step, LANES)])
    for place, row in zip(steps(to, rise, LANES), rows, strict=True):
        out[place] = row
