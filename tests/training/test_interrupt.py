import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gpubp.training import Callback, Checkpoints
from gpubp.training.interrupt import Interrupt
from tests.training.common import fit, same

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


class Press(Callback):
    """Presses Ctrl-C in a step."""

    def __init__(self, step, times=1):
        self.step, self.times = step, times

    def on_step(self, run):
        if run.step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)  # Python runs the handler between two instructions


def test_ctrl_c_ends_the_run_after_the_step(capsys):
    before = signal.getsignal(signal.SIGINT)
    net, history = fit(epochs=3, callbacks=[Press(10)], progress=True)
    assert history.interrupted
    assert [row["step"] for row in history] == [7]
    assert history.stopped is None
    assert "stopped by Ctrl-C after epoch 2, step 10/21" in capsys.readouterr().err
    same(net, fit(steps=10)[0])
    assert signal.getsignal(signal.SIGINT) is before


def test_at_the_end_of_an_epoch_its_row_is_still_made():
    _, history = fit(epochs=3, callbacks=[Press(14)])
    assert history.interrupted
    assert [row["step"] for row in history] == [7, 14]


def test_a_second_one_ends_it_at_once():
    before = signal.getsignal(signal.SIGINT)
    steps = []

    class Count(Callback):
        def on_step(self, run):
            steps.append(run.step)

    with pytest.raises(KeyboardInterrupt):
        fit(epochs=3, callbacks=[Press(2, times=2), Count()])
    assert steps == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_puts_the_handler_back():
    def own(*_):
        pass

    before = signal.signal(signal.SIGINT, own)
    try:
        with pytest.raises(ZeroDivisionError):
            fit(epochs=1, step=lambda *_: 1 / 0)
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_ctrl_c_is_ignored_it_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, history = fit(epochs=1, callbacks=[Press(2, times=2)])
        assert not history.interrupted
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_alone():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with Interrupt() as interrupt:
            found.append((signal.getsignal(signal.SIGINT), interrupt.asked))
        found.append(fit(epochs=1)[1])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] == (before, False)
    assert not found[1].interrupted


CODE = """
import time
from gpubp.training import Callback, Checkpoints
from tests.training.common import fit

class Slow(Callback):
    def on_step(self, run):
        print("step", run.step, flush=True)
        time.sleep(0.05)

_, history = fit(epochs=100, callbacks=[Slow()])
print("rows", len(history), history.interrupted)
"""


@pytest.mark.parametrize("presses", [1, 2])
def test_a_process(presses):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    while "step 9" not in process.stdout.readline():
        pass
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    out, err = process.communicate(timeout=60)
    if presses == 1:
        assert process.returncode == 0
        assert out.splitlines()[-1] == "rows 1 True"
        assert "Traceback" not in err
    else:
        assert process.returncode != 0
        assert "rows" not in out
        assert err.splitlines()[-1] == "KeyboardInterrupt"


def test_the_checkpoint_is_written_and_the_run_goes_on_from_there(tmp_path, capsys):
    _, history = fit(epochs=3, callbacks=[Press(10)], checkpoint=tmp_path, progress=True)
    assert history.interrupted
    assert Checkpoints(tmp_path).steps() == [7, 10]
    assert "after epoch 2, step 10/21; resume=True goes on from there" in capsys.readouterr().err
    net, history = fit(epochs=3, callbacks=[Press(-1)], checkpoint=tmp_path, resume=True)
    expected, rows = fit(epochs=3)
    assert not history.interrupted
    assert history == rows
    same(net, expected)
