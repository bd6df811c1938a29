import numpy as np
import pytest

import gpubp as bp
from gpubp.data.download import find


def test_text_becomes_numbers_and_text_again(example):
    script = example("shakespeare")
    text = "MACBETH.\nSo foul and fair a day~"
    numbers = script.encode(text)
    assert script.decode(numbers) == text
    assert 0 <= numbers.min() <= numbers.max() < script.SYMBOLS


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
    text = script.encode("Tomorrow, and tomorrow, and tomorrow,\n" * 200)
    net, bits = script.train(kind, text, text[:2000], steps=150, device="cpu", batch=8, time_steps=32, lr=1e-2, **sizes)
    assert bits < 1.0
    assert "bits per character on the plays held out" in capsys.readouterr().out
    assert len(script.write(net, "Tom", 20)) == 23


def test_carried_states_read_as_one_text_does(example):
    script = example("shakespeare")
    net, text = script.Reader(8), script.encode("Out, out, brief candle! Life's but a walking shadow")
    whole, _ = net(text[None, :40])
    first, state = net(text[None, :25])
    second, _ = net(text[None, 25:40], state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)


def test_the_transformer_does_not_look_ahead(example):
    script = example("shakespeare")
    net, text = script.Transformer(16, 2, 2), script.encode("Out, out, brief candle!")
    other = text.copy()
    other[10:] = 3
    np.testing.assert_array_equal(net(other[None])[0][:, :10], net(text[None])[0][:, :10])


@pytest.mark.parametrize("kind", ["Reader", "Transformer"])
def test_a_step_is_the_same_on_every_library(example, kind):
    script = example("shakespeare")
    net = script.Reader(8) if kind == "Reader" else script.Transformer(8, 2, 1)
    x = script.encode("Out, out, brief candle!").reshape(1, -1)
    bp.testing.assert_parity(lambda net, x: net(x)[0], (net, x), backends=["numpy", "standin", "array_api_strict"])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps", "bits"), [("lstm", 150, 3.6), ("transformer", 60, 4.0)])
def test_the_net_learns_from_the_plays(example, fetched, kind, steps, bits):
    script = example("shakespeare")
    text, held_out = script.texts(fetched(find, script.FILES))
    assert len(text) + len(held_out) == 5057198
    _, found = script.train(kind, text, held_out[:32768], steps=steps, device="cpu")
    assert found < bits
