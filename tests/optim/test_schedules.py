import copy
import inspect
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubp import optim
from gpubp.optim import schedules
from gpubp.optim.schedules import (
    constant,
    cosine,
    exponential,
    from_dict,
    joined,
    linear,
    multistep,
    one_cycle,
    polynomial,
    step,
    warmup,
)

#: One schedule of every kind, with options that are not the defaults.
EVERY = [
    constant(0.3),
    step(0.3, every=4, factor=0.5),
    multistep(0.3, at=[2, 5], factor=0.5),
    exponential(0.3, factor=0.9),
    linear(0.3, steps=8, start=0.1, end=0.7),
    polynomial(0.3, steps=8, power=2.0, end=0.1),
    cosine(0.3, steps=4, warmup=3, restarts=2, growth=2, start=0.2, end=0.1),
    one_cycle(0.3, steps=10, rise=0.4, start=0.2, end=0.01, shape="linear", three_phases=True),
    warmup(step(0.3, every=4), 3, start=0.5),
    joined([0.1, cosine(0.3, steps=4), warmup(0.2, 2)], at=[3, 9]),
]
IDS = [repr(schedule) for schedule in EVERY]


def values(schedule, count):
    return [schedule(t) for t in range(count)]


# -- by hand


def test_in_steps():
    assert values(constant(0.5), 3) == [0.5] * 3
    assert values(step(1.0, every=2, factor=0.5), 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert values(multistep(1.0, at=(1, 4), factor=0.5), 6) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert values(exponential(1.0, factor=0.5), 4) == [1, 0.5, 0.25, 0.125]


def test_factors_above_1_end_at_infinity():
    assert exponential(1, factor=3)(10**9) == math.inf  # of whole numbers, too, which could grow without end
    assert exponential(1, factor=2)(10) == 1024.0


def test_along_a_curve():
    assert values(linear(2.0, steps=4), 7) == [2, 1.5, 1, 0.5, 0, 0, 0]
    assert values(linear(2.0, steps=2, start=0.5, end=2.0), 4) == [1, 2.5, 4, 4]
    assert values(polynomial(2.0, steps=2, power=2.0), 4) == [2, 0.5, 0, 0]
    assert values(polynomial(2.0, steps=2, end=0.5), 4) == [2, 1.5, 1, 1]
    np.testing.assert_allclose(values(cosine(2.0, steps=4, end=0.1), 3)[::2], [2, 1.1], rtol=1e-15)


@pytest.mark.parametrize(
    ("schedule", "last", "rate"),
    [
        (linear(0.3, steps=8, end=0.1), 8, 0.03),
        (polynomial(0.3, steps=8, power=3.0, end=0.1), 8, 0.03),
        (cosine(0.3, steps=8), 8, 0.0),
        (cosine(0.3, steps=8, warmup=5, end=0.1), 13, 0.03),
        (cosine(0.3, steps=8, restarts=2, end=0.1), 24, 0.03),
        (cosine(0.3, steps=8, restarts=2, growth=3, end=0.1), 8 + 24 + 72, 0.03),
        (one_cycle(0.3, steps=9), 8, 0.3 / 25e4),
        (one_cycle(0.3, steps=9, end=0.01, shape="linear", three_phases=True), 8, 0.003),
    ],
)
def test_where_it_ends_it_stays(schedule, last, rate):
    assert schedule(last - 1) > rate
    for t in (last, last + 1, 10**9):
        assert schedule(t) == pytest.approx(rate, rel=1e-15, abs=0)


def test_warm_up():
    assert values(warmup(2.0, 4, start=0.5), 6) == [1, 1.25, 1.5, 1.75, 2, 2]
    then = step(1.0, every=2, factor=0.5)
    assert values(warmup(then, 2, start=0.0), 6) == [0, 0.5, 1, 1, 0.5, 0.5]
    assert values(warmup(then, 0), 6) == values(then, 6)
    assert values(cosine(0.3, steps=5, warmup=3), 9) == values(warmup(cosine(0.3, steps=5), 3), 9)
    assert warmup(0.1, 10)(0) == pytest.approx(0.001)


def test_restarts_begin_again_at_the_top():
    rates = values(cosine(1.0, steps=2, restarts=2, growth=2), 15)
    assert [t for t, rate in enumerate(rates) if rate == 1.0] == [0, 2, 6]
    assert rates[2:6] == values(cosine(1.0, steps=4), 4)
    assert rates[14] == 0.0


def test_one_cycle_rises_and_falls():
    rates = values(one_cycle(1.0, steps=101, rise=0.5 / 101 + 0.5), 101)
    assert rates[0] == pytest.approx(1 / 25)
    assert rates.index(max(rates)) == 50
    assert max(rates) == 1.0
    assert rates[:51] == sorted(rates[:51])
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_joined_parts_count_from_0():
    schedule = joined([0.5, exponential(1.0, factor=0.5), lambda t: 10.0 + t], at=[2, 4])
    assert values(schedule, 7) == [0.5, 0.5, 1.0, 0.5, 10.0, 11.0, 12.0]


# -- descriptions


def test_every_schedule_is_here():
    assert {schedule.name for schedule in EVERY} == set(schedules.__all__) - {"Schedule", "from_dict"}


@pytest.mark.parametrize("schedule", EVERY, ids=IDS)
def test_descriptions(schedule):
    again = from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert values(again, 40) == values(schedule, 40)
    assert eval(repr(schedule), dict(vars(schedules))) == schedule
    assert copy.deepcopy(schedule) == schedule


def test_equal_only_if_alike():
    assert step(0.3, every=4) == step(0.3, every=4, factor=0.1)
    assert step(0.3, every=4) != step(0.3, every=5)
    assert constant(0.3) != exponential(0.3, factor=1.0)


def test_numpys_numbers_are_described_as_numbers():
    found = step(np.float32(0.5), every=np.int64(3)).to_dict()
    assert json.dumps(found) == '{"name": "step", "lr": 0.5, "every": 3, "factor": 0.1}'


def test_it_is_the_learning_rate_of_an_optimizer():
    p = {"w": np.zeros(1)}
    opt = optim.SGD(p, exponential(1.0, factor=0.5))
    for _ in range(4):
        opt.step({"w": np.ones(1)})
    assert p["w"][0] == -(1 + 0.5 + 0.25 + 0.125)


# -- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: constant("0.1"), TypeError, "lr must be a number, got '0.1'"),
        (lambda: constant(-0.1), ValueError, "lr must be finite and not negative, got -0.1"),
        (lambda: constant(10**400), ValueError, "lr must be finite and not negative, got 1000"),
        (lambda: linear(0.1, steps=2**53 + 1), ValueError, r"at most 2\*\*53, got 9007199254740993"),
        (lambda: cosine(math.nan, steps=3), ValueError, "lr must be finite and not negative, got nan"),
        (lambda: step(0.1), TypeError, r"step\(\) missing 1 required keyword-only argument: 'every'"),
        (lambda: step(0.1, every=0), ValueError, "step expects every to be at least 1 .*, got 0"),
        (lambda: step(0.1, every=2.5), TypeError, "step expects every to be a whole number of steps, got 2.5"),
        (lambda: step(0.1, every=2, factor=0.0), ValueError, "factor must be finite and above 0, got 0.0"),
        (lambda: exponential(0.1, factor=math.inf), ValueError, "factor must be finite and above 0, got inf"),
        (lambda: multistep(0.1, at=[3, 3]), ValueError, r"multistep expects `at` to be increasing .*, got \[3, 3\]"),
        (lambda: multistep(0.1, at=3), ValueError, "multistep expects `at` to be increasing step numbers, got 3"),
        (lambda: multistep(0.1, at=[]), ValueError, r"increasing step numbers, got \[\]"),
        (lambda: multistep(0.1, at=[0, 3]), ValueError, "multistep expects each of `at` to be at least 1 .*, got 0"),
        (lambda: linear(0.1, steps=True), TypeError, "linear expects steps to be a whole number of steps, got True"),
        (lambda: linear(0.1, steps=3, end=-1), ValueError, "linear expects end to be a fraction of lr, from 0, got -1"),
        (lambda: polynomial(0.1, steps=3, power=0), ValueError, "polynomial expects a finite power above 0, got 0"),
        (lambda: cosine(0.1, steps=3, restarts=-1), ValueError, "cosine expects restarts to be at least 0 .*, got -1"),
        (lambda: cosine(0.1, steps=3, growth=0), ValueError, "cosine expects growth to be at least 1 .*, got 0"),
        (lambda: cosine(0.1, steps=3, warmup=-1), ValueError, "warmup expects steps to be at least 0 .*, got -1"),
        (lambda: one_cycle(0.1, steps=1), ValueError, "one_cycle expects steps to be at least 2 .*, got 1"),
        (lambda: one_cycle(0.1, steps=9, shape="cos"), ValueError, "shape='cosine' or 'linear', got 'cos'"),
        (lambda: one_cycle(0.1, steps=9, rise=1.1), ValueError, "a rise above 0 and up to 1.0 of the steps, got 1.1"),
        (lambda: one_cycle(0.1, steps=9, rise=0.6, three_phases=True), ValueError, "up to 0.5 of the steps, got 0.6"),
        (lambda: warmup("x", 3), TypeError, "a schedule is a function of the step number, or a number, got 'x'"),
        (lambda: joined([0.1, 0.2], at=[3, 4]), ValueError, r"a step in `at` for each .*, got 2 and \[3, 4\]"),
        (lambda: constant(0.1)(-1), ValueError, "steps are counted from 0, got -1"),
        (lambda: from_dict(0.1), ValueError, "described by its name, one of constant, joined, .*, got 0.1"),
        (lambda: from_dict({"name": ["step"]}), ValueError, "described by its name, one of constant, "),
        (lambda: from_dict({"name": "cos"}), ValueError, r"one of constant, .*, got \{'name': 'cos'\}"),
        (lambda: from_dict({"name": "step"}), ValueError, "describes no schedule: step.. missing 1 required"),
        (
            lambda: from_dict({"name": "constant", "lr": 0.1, "end": 1}),
            ValueError,
            r"describes no schedule: constant\(\) got an unexpected keyword argument 'end'",
        ),
        (lambda: warmup(abs, 3).to_dict(), TypeError, "<built-in function abs> cannot be described"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(0, 9), st.floats(0, 1))


def descriptions(values):
    """Of all kinds, with options of which many are good."""

    def of(name, **options):
        return st.fixed_dictionaries(
            {"name": st.just(name)},
            optional={key: st.just(good) | st.just(good) | values for key, good in options.items()},
        )

    return st.one_of(*(of(**schedule.to_dict()) for schedule in EVERY))


LEAVES = st.one_of(NUMBERS, st.booleans(), st.text(max_size=4), st.none())
VALUES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), descriptions(inner)), max_leaves=6)


@given(descriptions(VALUES), st.integers(0, 10**9))
def test_any_description_is_a_schedule_or_an_error_with_a_message(description, t):
    try:
        schedule = from_dict(description)
    except ValueError:
        return
    assert isinstance(schedule(t), int | float)
    assert from_dict(schedule.to_dict()) == schedule


# -- PyTorch's


def torchs(lr, make, count):
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, opt)
    found = []
    for _ in range(count):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return found


@pytest.mark.peers
@pytest.mark.parametrize(
    ("schedule", "make", "count"),
    [
        (step(0.3, every=7, factor=0.5), lambda s, o: s.StepLR(o, 7, 0.5), 50),
        (multistep(0.3, at=[3, 20, 21], factor=0.5), lambda s, o: s.MultiStepLR(o, [3, 20, 21], 0.5), 50),
        (exponential(0.3, factor=0.97), lambda s, o: s.ExponentialLR(o, 0.97), 50),
        (linear(0.3, steps=30, start=0.1, end=0.7), lambda s, o: s.LinearLR(o, 0.1, 0.7, 30), 50),
        (warmup(0.3, 12, start=0.25), lambda s, o: s.LinearLR(o, 0.25, 1.0, 12), 50),
        (joined([0.03, 0.3], at=[9]), lambda s, o: s.ConstantLR(o, 0.1, 9), 50),
        (polynomial(0.3, steps=40, power=0.7), lambda s, o: s.PolynomialLR(o, 40, 0.7), 50),
        (cosine(0.3, steps=50, end=0.1), lambda s, o: s.CosineAnnealingLR(o, 50, 0.03), 51),
        (
            cosine(0.3, steps=10, restarts=4, end=0.1),
            lambda s, o: s.CosineAnnealingWarmRestarts(o, 10, eta_min=0.03),
            50,
        ),
        (
            cosine(0.3, steps=7, restarts=3, growth=2),
            lambda s, o: s.CosineAnnealingWarmRestarts(o, 7, 2),
            7 * 15,
        ),
        (
            cosine(0.3, steps=40, warmup=8, start=0.1),
            lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 8), s.CosineAnnealingLR(o, 40)], [8]),
            48,
        ),
        (
            joined([exponential(0.3, factor=0.9), step(0.3, every=5)], at=[20]),
            lambda s, o: s.SequentialLR(o, [s.ExponentialLR(o, 0.9), s.StepLR(o, 5)], [20]),
            50,
        ),
        (one_cycle(0.3, steps=50), lambda s, o: s.OneCycleLR(o, 0.3, 50, cycle_momentum=False), 50),
        (
            one_cycle(0.3, steps=47, rise=0.21, start=0.1, end=0.003, shape="linear"),
            lambda s, o: s.OneCycleLR(
                *(o, 0.3, 47),
                pct_start=0.21,
                anneal_strategy="linear",
                cycle_momentum=False,
                div_factor=10.0,
                final_div_factor=100 / 3,
            ),
            47,
        ),
        (
            one_cycle(0.3, steps=50, three_phases=True),
            lambda s, o: s.OneCycleLR(o, 0.3, 50, three_phase=True, cycle_momentum=False),
            50,
        ),
        (
            one_cycle(0.3, steps=50, rise=0.5, three_phases=True, shape="linear"),
            lambda s, o: s.OneCycleLR(
                *(o, 0.3, 50), pct_start=0.5, three_phase=True, cycle_momentum=False, anneal_strategy="linear"
            ),
            50,
        ),
        (
            one_cycle(0.3, steps=2),
            lambda s, o: s.OneCycleLR(o, 0.3, 2, cycle_momentum=False),
            2,
        ),
    ],
    ids=lambda x: None if inspect.isfunction(x) else repr(x),
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
def test_pytorch_agrees(schedule, make, count):
    np.testing.assert_allclose(values(schedule, count), torchs(0.3, make, count), rtol=1e-12, atol=1e-15)
