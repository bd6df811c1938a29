"""`Array`: a backend array together with the place on a transform's tape where it was made."""

from __future__ import annotations

import math
import sys
from itertools import count
from pathlib import Path
from typing import Any

from .boundary import is_complex, is_inexact

_PACKAGE = str(Path(__file__).parent)
_levels = count(1)


class _Finished:
    """Stands where a finished transform's records were, so that no later operation is recorded in vain."""

    def __len__(self) -> int:
        raise RuntimeError(
            "a traced value was used after the transform that made it had ended; return it from the "
            "differentiated function (has_aux=True), or use gpubp.stop_gradient on it before it leaves"
        )

    append = __len__


FINISHED: Any = _Finished()


class Tape:
    """The operations of one transform, in the order they were computed.

    A value is known by its index. Later transforms have higher levels, an inner transform always a higher one
    than those around it; level 0 belongs to constants and has no records.
    """

    __slots__ = ("keep_arguments", "level", "ns", "records")
    may_detach = False  # whether values leave without their gradient: only where none is ever asked for (testing)

    def __init__(self, ns: Any, level: int | None = None, keep_arguments: bool = True) -> None:
        self.level = next(_levels) if level is None else level
        self.ns = ns
        self.records: list[Any] = []
        self.keep_arguments = keep_arguments  # whether a traced cotangent may come back to fused records


class Array:
    """A traced array: what array code sees inside a transform.

    It behaves as the backend's array does: operators, indexing, the methods NumPy and CuPy share, and the
    namespace of the Array API standard through ``__array_namespace__``. Nothing turns it into a plain array
    silently: `gpubp.stop_gradient` does so on purpose.

    Item assignment ``x[i] = v`` puts a new traced value in the place of ``x``, and so does ``x += v`` where the
    library's arrays have it; views of ``x`` taken earlier keep what they were.
    """

    __slots__ = ("data", "node", "tape")
    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    # No __init__: it would cost as much as recording an operation does. See `box`.
    data: Any  # a plain array, or an Array of a lower level
    tape: Tape
    node: int | None  # None exactly for constants, whose tape is the root of their namespace

    # -- the standard's attributes

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return self.tape.ns

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return int(self.data.ndim)

    @property
    def size(self) -> int:
        return math.prod(self.data.shape)

    @property
    def device(self) -> Any:
        from array_api_compat import device

        return device(strip(self))

    def to_device(self, device: Any, /, *, stream: Any = None) -> Array:
        """The same values on another device of the same library."""
        return self.tape.ns._to_device(self, device, stream=stream)  # type: ignore[no-any-return]

    @property
    def mT(self) -> Any:
        return self.tape.ns.matrix_transpose(self)

    @property
    def T(self) -> Any:
        return self.tape.ns.permute_dims(self, tuple(range(self.ndim))[::-1])

    # -- operators

    def __add__(self, other: Any) -> Any:
        return self.tape.ns.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return self.tape.ns.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return self.tape.ns.subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.tape.ns.subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return self.tape.ns.multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.tape.ns.multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.tape.ns.divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.tape.ns.divide(other, self)

    def __pow__(self, other: Any) -> Any:
        return self.tape.ns.pow(self, other)

    def __rpow__(self, other: Any) -> Any:
        return self.tape.ns.pow(other, self)

    def __matmul__(self, other: Any) -> Any:
        return self.tape.ns.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self.tape.ns.matmul(other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self.tape.ns.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self.tape.ns.floor_divide(other, self)

    def __mod__(self, other: Any) -> Any:
        return self.tape.ns.remainder(self, other)

    def __rmod__(self, other: Any) -> Any:
        return self.tape.ns.remainder(other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __neg__(self) -> Any:
        return self.tape.ns.negative(self)

    def __pos__(self) -> Any:
        return self.tape.ns.positive(self)

    def __abs__(self) -> Any:
        return self.tape.ns.abs(self)

    def __invert__(self) -> Any:
        return self.tape.ns.bitwise_invert(self)

    def __and__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_and(other, self)

    def __or__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_left_shift(self, other)

    def __rlshift__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_left_shift(other, self)

    def __rshift__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_right_shift(self, other)

    def __rrshift__(self, other: Any) -> Any:
        return self.tape.ns.bitwise_right_shift(other, self)

    def __lt__(self, other: Any) -> Any:
        return self.tape.ns.less(self, other)

    def __le__(self, other: Any) -> Any:
        return self.tape.ns.less_equal(self, other)

    def __gt__(self, other: Any) -> Any:
        return self.tape.ns.greater(self, other)

    def __ge__(self, other: Any) -> Any:
        return self.tape.ns.greater_equal(self, other)

    def __eq__(self, other: object) -> Any:
        return self.tape.ns.equal(self, other)

    def __ne__(self, other: object) -> Any:
        return self.tape.ns.not_equal(self, other)

    # -- items

    def __getitem__(self, key: Any) -> Any:
        return self.tape.ns._take_at(self, key=key)

    def __setitem__(self, key: Any, value: Any) -> None:
        new = self.tape.ns._put(self, value, key=key)
        self.data, self.tape, self.node = new.data, new.tape, new.node

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d array")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    # -- the host: control flow may look at values, nothing else does

    def __bool__(self) -> bool:
        return bool(strip(self))

    def __int__(self) -> int:
        return int(strip(self))

    def __index__(self) -> int:
        if is_inexact(self.dtype):
            raise TypeError(f"an index must be an integer, got an array of {self.dtype}")
        return int(strip(self))  # CuPy's arrays have no __index__

    def __float__(self) -> float:
        return float(self._detached("float()"))

    def __complex__(self) -> complex:
        return complex(self._detached("complex()"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        return np.asarray(self._detached("conversion to a NumPy array"), dtype=dtype, copy=copy)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        asked = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._detached("DLPack export").__dlpack__(**given)

    def __dlpack_device__(self) -> Any:
        return strip(self).__dlpack_device__()

    def item(self) -> Any:
        """The value of a constant with one element, as a Python scalar."""
        return self._detached("item()").item()

    def tolist(self) -> Any:
        """The values of a constant as nested lists."""
        return self._detached("tolist()").tolist()

    def __copy__(self) -> Array:
        return freeze(self)

    def __deepcopy__(self, memo: Any) -> Array:
        return freeze(self)

    def __reduce__(self) -> Any:
        raise TypeError("a traced array cannot be pickled: it belongs to a running transform")

    def __repr__(self) -> str:
        return f"Array(level={self.tape.level}, {self.data!r})"

    def _detached(self, what: str) -> Any:
        if self.node is not None and not self.tape.may_detach:
            raise TypeError(
                f"{what} of a traced array of shape {self.shape} would lose its gradient; "
                "apply gpubp.stop_gradient to it first if that is meant (to join traced values, use stack)"
            )
        return self.data

    # -- NumPy's protocols, and the methods NumPy and CuPy share

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from .numpy_code import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from .numpy_code import call_function

        return call_function(func, args, kwargs)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """PyTorch asks here when one of its tensors meets an `Array` in an operator."""
        from .numpy_code import call_torch_operator

        return call_torch_operator(func, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        from .numpy_code import method

        return method(self, name)


def _in_place(name: str) -> Any:
    out_of_place, in_place = getattr(Array, f"__{name}__"), f"__i{name}__"

    def method(self: Array, other: Any) -> Any:
        new = out_of_place(self, other)
        if not hasattr(strip(self), in_place):  # JAX's arrays and NumPy's scalars never change
            return new
        if new.shape != self.shape:
            raise ValueError(f"{in_place} would change the shape of an array in place: {self.shape} to {new.shape}")
        if new.dtype != self.dtype:
            if is_inexact(new.dtype) > is_inexact(self.dtype) or is_complex(new) > is_complex(self):
                raise TypeError(f"{in_place} would change the dtype of an array in place: {self.dtype} to {new.dtype}")
            new = self.tape.ns.astype(new, self.dtype)
        self.data, self.tape, self.node = new.data, new.tape, new.node
        return self

    method.__name__ = method.__qualname__ = in_place
    return method


_OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
for _name in _OPERATORS.split():
    setattr(Array, f"__i{_name}__", _in_place(_name))


def box(data: Any, tape: Tape, node: int | None) -> Array:
    """An `Array` of these parts."""
    x = Array()
    x.data, x.tape, x.node = data, tape, node
    return x


def freeze(x: Array) -> Array:
    """A copy of the box, which later item assignment to `x` does not change."""
    return box(x.data, x.tape, x.node)


def of_outputs(cotangents: list[Any], outputs: int, g: Any) -> tuple[Any, ...] | None:
    """The cotangents of a record's outputs, of which `g` is the last one's; None if no output was used.

    The others stand at the end of `cotangents`: a record with several outputs is that of the last, and what used
    the others came later, so that theirs are complete.
    """
    found = (*cotangents[len(cotangents) - outputs + 1 :], g)
    return None if all(c is None for c in found) else found


def strip(x: Any) -> Any:
    """The plain array below every level; also inside a tuple or list, as indexing keys have them."""
    while type(x) is Array:
        x = x.data
    if type(x) in (tuple, list):
        return type(x)(strip(item) for item in x)
    return x


def users_line() -> str:
    """Where, outside this package, the running call came from."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
