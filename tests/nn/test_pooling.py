import numpy as np
import pytest

from gpubp import functions as F
from gpubp import nn

rng = np.random.default_rng(0)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_layer_is_its_function_for_any_number_of_axes(rank):
    x = rng.normal(size=(2, *(6,) * rank, 3))
    options = {"stride": 2, "padding": 1}
    np.testing.assert_array_equal(nn.MaxPool(3, **options)(x), F.max_pool(x, window=3, **options))
    np.testing.assert_array_equal(
        nn.AvgPool(3, **options, count_include_pad=False)(x),
        F.avg_pool(x, window=3, **options, count_include_pad=False),
    )
    np.testing.assert_array_equal(nn.GlobalAvgPool()(x), F.global_avg_pool(x))
    np.testing.assert_array_equal(nn.AdaptiveAvgPool(4)(x), F.adaptive_avg_pool(x, size=4))


def test_layers_are_shown_with_what_is_not_the_default():
    assert repr(nn.MaxPool(2)) == "MaxPool(2)"
    assert repr(nn.MaxPool([2, 3], stride=1, padding="same")) == "MaxPool((2, 3), stride=1, padding='same')"
    assert repr(nn.AvgPool(2, count_include_pad=False)) == "AvgPool(2, count_include_pad=False)"
    assert repr(nn.GlobalAvgPool()) == "GlobalAvgPool()"
    assert repr(nn.AdaptiveAvgPool((1, 2))) == "AdaptiveAvgPool((1, 2))"


@pytest.mark.parametrize("layer", [nn.MaxPool(2), nn.AvgPool(2), nn.GlobalAvgPool(), nn.AdaptiveAvgPool(1)])
def test_inputs_that_do_not_fit_are_named(layer):
    with pytest.raises(
        ValueError, match=r"Pool\(.*\) expects an input of shape \(batch, \*spatial, channels\), got \(3, 4\)"
    ):
        layer(np.ones((3, 4)))
    with pytest.raises(TypeError, match=r"Pool\(.*\) expects arrays, got None as input"):
        layer(None)
    with pytest.raises(TypeError, match="floating-point dtype, got int64") as caught:
        layer(np.ones((1, 4, 4, 1), dtype="int64"))
    assert caught.value.__notes__ == [f"in {layer!r}"]
