import numpy as np
import pytest

import gpubp as bp
from gpubp.data import Text

LINE = "Out, out, brief candle! Life's but a walking shadow"
TEXT = Text(np.unique(list(LINE), return_inverse=True)[1], "".join(sorted(set(LINE))))
N = len(TEXT.characters)


def test_streams_go_on_where_they_stopped(example):
    pieces = list(example("shakespeare").streams(np.arange(101), 4, 6))
    assert len(pieces) == 4
    np.testing.assert_array_equal(
        np.concatenate([x for x, _ in pieces], axis=1), 25 * np.arange(4)[:, None] + np.arange(24)
    )
    for x, y in pieces:
        np.testing.assert_array_equal(y, x + 1)


@pytest.mark.parametrize(("kind", "sizes"), [("lstm", {"n": 32}), ("transformer", {"n": 16, "heads": 2, "blocks": 1})])
def test_the_net_learns_to_write_a_line_again_and_again(example, kind, sizes, capsys):
    script = example("shakespeare")
    line = Text(np.tile(TEXT.ids, 150), TEXT.characters)
    held_out = Text(line.ids[:2000], TEXT.characters)
    net, bits = script.train(kind, line, held_out, steps=150, device="cpu", batch=8, time_steps=32, lr=1e-2, **sizes)
    assert bits < 1.0
    assert "bits per character on the plays held out" in capsys.readouterr().out
    assert len(script.write(net, TEXT, "Out", 20)) == 23


def test_carried_states_read_as_one_text_does(example):
    script = example("shakespeare")
    net, text = script.Reader(N, 8), TEXT.ids
    whole, _ = net(text[None, :40])
    first, state = net(text[None, :25])
    second, _ = net(text[None, 25:40], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)


def test_the_transformer_does_not_look_ahead(example):
    script = example("shakespeare")
    net, text = script.Transformer(N, 16, 2, 2), TEXT.ids
    other = text.copy()
    other[10:] = 3
    np.testing.assert_array_equal(net(other[None])[0][:, :10], net(text[None])[0][:, :10])


@pytest.mark.parametrize("kind", ["Reader", "Transformer"])
def test_a_step_is_the_same_on_every_library(example, kind):
    script = example("shakespeare")
    net = script.Reader(N, 8) if kind == "Reader" else script.Transformer(N, 8, 2, 1)
    x = TEXT.ids[None, :23]
    bp.testing.assert_parity(lambda net, x: net(x)[0], (net, x), backends=["numpy", "standin", "array_api_strict"])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps", "bits"), [("lstm", 150, 3.6), ("transformer", 60, 4.0)])
def test_the_net_learns_from_the_plays(example, fetched, kind, steps, bits):
    script = example("shakespeare")
    text, held_out = fetched(bp.data.shakespeare, download=False)
    part = Text(held_out.ids[:32768], held_out.characters)
    _, found = script.train(kind, text, part, steps=steps, device="cpu")
    assert found < bits
