"""Batches made ahead, in a thread, while the loop computes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from contextvars import copy_context
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, TypeVar

from ..device import Device

__all__ = ["ahead", "uploader"]

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], n: int) -> Generator[T, None, None]:
    """Yield items that a thread makes, up to `n` of them ahead.

    An exception in the thread is raised here in its turn, with its traceback. The thread ends with the items, or when
    this iterator is closed or given up, as a loop does that is left early.
    """
    ready: SimpleQueue[Any] = SimpleQueue()
    room, left = threading.Semaphore(n), threading.Event()
    context = copy_context()
    thread = threading.Thread(
        target=context.run, args=(_work, items, ready, room, left), name="gpubp prefetch", daemon=True
    )
    thread.start()
    try:
        while (got := ready.get()) is not _END:
            room.release()
            if isinstance(got, _Failed):
                raise got.error
            yield got
            del got  # it may be large
    finally:
        left.set()
        room.release()
        if thread is not threading.current_thread():  # where the garbage collector may have closed this
            thread.join()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _work(items: Iterable[Any], ready: SimpleQueue[Any], room: threading.Semaphore, left: threading.Event) -> None:
    try:
        items = iter(items)
        while True:
            room.acquire()
            if left.is_set():
                return
            ready.put(next(items))
    except StopIteration:
        ready.put(_END)
    except BaseException as error:
        ready.put(_Failed(error))


@cache
def uploader(device: Device) -> Any:
    """Return what copies batches to a device while it computes, or None where nothing does."""
    name = f"{__package__.partition('.')[0]}.kernels.{device.library}"
    if "." in device.library or find_spec(name) is None or find_spec(f"{name}.transfer") is None:
        return None
    return import_module(f"{name}.transfer").Uploader(device)
