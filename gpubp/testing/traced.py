"""A twin in which every floating-point array is traced, always: what the standard's official suite is run on."""

from __future__ import annotations

from typing import Any

from ..array import Array, Tape, box
from ..boundary import is_inexact
from ..namespace import Namespace, twin


class _Discarded(list[Any]):
    """The records of a transform that no one will differentiate: they are made, and dropped."""

    def append(self, record: Any) -> None:
        pass

    def extend(self, records: Any) -> None:
        pass


class _EndlessTape(Tape):
    """A tape that is never swept, so that nothing is lost when a value leaves it."""

    __slots__ = ()
    may_detach = True

    def __init__(self, ns: Namespace) -> None:
        super().__init__(ns)
        self.records = _Discarded()


class TracedNamespace(Namespace):
    """The twin of a namespace, whose creation functions give values that are being differentiated.

    So every function takes its way for traced arguments and records what it would in a transform. Values may be
    converted to Python and NumPy, which a transform refuses.
    """

    def __init__(self, name: str, raw: Any, root: Tape | None = None, prefix: str = "") -> None:
        super().__init__(name, raw, root, prefix)
        self.library = twin(raw).library if root is None else root.ns.library
        self.live = _EndlessTape(self) if root is None else root.ns.live

    def constant(self, data: Any) -> Any:
        """`data` as a traced array, or as a constant where its dtype has no derivative."""
        x = super().constant(data)
        return box(x.data, self.live, 0) if type(x) is Array and x.node is None and is_inexact(x.dtype) else x
