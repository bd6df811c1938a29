"""Whether cuDNN is there, its handles, and the plans that are kept."""

import sys
from types import ModuleType

import cupy
import pytest

from gpubp.fused import load_kernels

load_kernels("cupy")
from gpubp.kernels.cupy import frontend  # noqa: E402


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(frontend, "of_thread", frontend._Thread())
    monkeypatch.setattr(frontend, "_said", set())
    frontend.library.cache_clear()
    yield
    frontend.library.cache_clear()


def install(monkeypatch, create_handle=object):
    cudnn = ModuleType("cudnn")
    cudnn.create_handle, cudnn.destroy_handle, cudnn.streams = create_handle, lambda handle: None, {}
    cudnn.set_stream = lambda handle, stream: cudnn.streams.update({handle: stream})
    monkeypatch.setattr(frontend, "find_spec", lambda name: name == "cudnn")
    monkeypatch.setitem(sys.modules, "cudnn", cudnn)
    return cudnn


def test_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(frontend, "find_spec", lambda name: None)
    assert frontend.library() is None


def test_where_it_does_not_work(monkeypatch):
    def create_handle():
        raise RuntimeError("libcudnn.so.9: cannot open shared object file")

    install(monkeypatch, create_handle)
    with pytest.warns(UserWarning, match=r"nvidia-cudnn-frontend is installed but does not work: libcudnn\.so\.9"):
        assert frontend.library() is None
    assert frontend.library() is None  # and says so once


def test_a_handle_stays_and_follows_the_stream(monkeypatch):
    cudnn = install(monkeypatch)
    streams = iter([7, 9])
    stream = type("Stream", (), {"ptr": property(lambda self: next(streams))})()
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: stream, raising=False)
    handle = frontend.handle()
    assert cudnn.streams == {handle: 7}
    assert frontend.handle() is handle
    assert cudnn.streams == {handle: 9}


def test_the_plans_used_last_are_kept(monkeypatch):
    made = []

    def plan(form):
        return frontend.planned("it", (form,), lambda: made.append(form))

    monkeypatch.setattr(frontend, "Plan", lambda graph, choose: [graph])
    monkeypatch.setattr(frontend, "PLANS", 2)
    first = plan(1)
    plan(2)
    assert plan(1) is first
    plan(3)
    assert plan(1) is first
    plan(2)
    assert made == [1, 2, 3, 2]
    assert len(frontend.of_thread.plans) == 2


def test_what_has_no_plan_is_not_tried_again(monkeypatch):
    tried = []

    def make():
        tried.append(1)
        raise NotImplementedError

    with pytest.warns(UserWarning, match="no plan for it, which takes the usual way: NotImplementedError"):
        assert frontend.planned("it", (1,), make) is None
    assert frontend.planned("it", (1,), make) is None
    assert len(tried) == 1
