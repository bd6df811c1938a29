"""Every function of the standard and every fused function, from its record in the catalogue."""

import warnings
import zlib
from types import ModuleType

import array_api_strict
import numpy as np
import pytest

import gpubp as bp
import gpubp.functions
from gpubp.array import Array
from gpubp.boundary import is_inexact
from gpubp.dtypes import named
from gpubp.fused import FUSED, load_kernels
from gpubp.namespace import _BEYOND, twin
from gpubp.rules import all_rules
from gpubp.rules.registry import Query, Undifferentiable
from gpubp.testing import CATALOGUE, Sample, check_grads
from gpubp.testing.backends import load
from gpubp.tree import leaves, map_leaves, rebuild

RULES = all_rules()
DTYPES = ("float64", "float32")
TOLERANCES = {"float64": 1e-10, "complex128": 1e-10, "float32": 2e-4, "complex64": 2e-4}
#: One rounding, and what sums of a few dozen terms in float32 lose.
HALF_TOLERANCES = {"float16": (2.0**-10, 1e-6), "bfloat16": (2.0**-7, 1e-6), "float32": (1e-5, 1e-6)}
COMPLEX = {"float64": "complex128", "float32": "complex64"}
RECORDS = list(CATALOGUE.values())
DIFFERENTIABLE = [r for r in RECORDS if r.differentiable]

each = pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
each_differentiable = pytest.mark.parametrize("record", DIFFERENTIABLE, ids=lambda r: r.name)
each_fused = pytest.mark.parametrize("name", sorted(FUSED))


# -- is the catalogue complete?


def standard() -> set[str]:
    """Return the names of the standard's functions as the registry has them: ``exp``, ``linalg.inv``, ``fft.fft``."""

    def functions(module: ModuleType, prefix: str) -> set[str]:
        names = {n for n in module.__all__ if callable(getattr(module, n)) and not isinstance(getattr(module, n), type)}
        return {prefix + n for n in names if "array_api_strict" not in n and not n.startswith("_")}

    main = functions(array_api_strict, "")
    linalg = {n for n in functions(array_api_strict.linalg, "linalg.") if n.removeprefix("linalg.") not in main}
    forgotten = {"linalg.eig", "linalg.eigvals"}  # in array-api-strict's __all__, that is
    return main | linalg | forgotten | functions(array_api_strict.fft, "fft.")


def missing(catalogue: dict) -> list[str]:
    """Return the functions that have no record; those that return no arrays need none."""
    ours = {name for name, rule in all_rules().items() if not isinstance(rule, Query)}
    return sorted((ours | set(FUSED)) - set(catalogue))


def test_every_function_of_the_standard_has_a_rule():
    assert len(standard()) == 170
    assert sorted(standard() - set(all_rules())) == []


def test_every_rule_and_every_fused_function_has_a_record():
    assert missing(CATALOGUE) == []


def test_every_record_belongs_to_a_function():
    assert sorted(set(CATALOGUE) - set(all_rules()) - set(FUSED)) == []


@pytest.mark.parametrize("name", ["exp", "linalg.inv", "_put", *sorted(FUSED)[:1]])
def test_a_record_that_is_taken_away_is_missed(name):
    assert missing({k: v for k, v in CATALOGUE.items() if k != name}) == [name]


# -- from a record to calls


def variants(record):
    """Yield each sample in each dtype: ``(dtype, sample)``, with complex ones where the record says so."""
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    samples = list(record.samples(rng))
    complex_ones = [s for s in samples if any(x.dtype.kind == "c" for x in arrays(s))]
    if record.complex and not complex_ones:
        complex_ones = [with_imaginary_parts(s, rng) for s in samples if any(x.dtype.kind == "f" for x in arrays(s))]
    for dtype in DTYPES:
        yield from ((dtype, cast(s, dtype)) for s in samples if not any(x.dtype.kind == "c" for x in arrays(s)))
        yield from ((COMPLEX[dtype], cast(s, dtype)) for s in complex_ones)


def arrays(sample) -> list:
    return leaves((sample.args, sample.kwargs))


def mapped(f, sample) -> Sample:
    args, kwargs = map_leaves(f, (sample.args, sample.kwargs))
    return Sample(*args, **kwargs)


def with_imaginary_parts(sample, rng):
    return mapped(lambda x: x + 1j * rng.normal(size=x.shape) if x.dtype.kind == "f" else x, sample)


def cast(sample, dtype):
    kinds = {"f": dtype, "c": COMPLEX[dtype]}
    return mapped(lambda x: np.asarray(x, dtype=kinds.get(x.dtype.kind, x.dtype)), sample)


def on(backend, sample):
    """Return a sample with a backend's arrays and dtypes."""

    def visit(x):
        if isinstance(x, np.ndarray):
            return backend.asarray(x)
        if isinstance(x, np.dtype) or (isinstance(x, type) and issubclass(x, np.generic)):
            return getattr(backend.xp, np.dtype(x).name)
        if type(x) in (list, tuple):
            return type(x)(map(visit, x))
        return x

    return Sample(*map(visit, sample.args), **{k: visit(v) for k, v in sample.kwargs.items()})


def function(name, xp):
    """Return the function of a record: a fused one, or that of a namespace of plain or of traced arrays."""
    if name in FUSED:
        return FUSED[name]
    if name in _BEYOND and isinstance(xp, ModuleType) and not hasattr(xp, name):
        return _BEYOND[name](xp)
    for part in name.split("."):
        xp = getattr(xp, part)
    return xp


def call(record, xp, sample):
    args = sample.args if record.pre is None else record.pre(xp, *sample.args)
    out = function(record.name, xp)(*args, **sample.kwargs)
    return out if record.post is None else record.post(xp, out)


def plain(record, xp, sample):
    """Compute with plain arrays, by the library itself; by the reference if the function is fused."""
    if record.name in FUSED:
        return FUSED[record.name].reference(*sample.args, **sample.kwargs)
    return call(record, xp, sample)


def of_arrays(record, xp, sample):
    """Return a sample's call as a function of its arrays alone, with them."""
    tree = (sample.args, sample.kwargs)

    def f(*values):
        args, kwargs = rebuild(tree, values)
        return call(record, xp, Sample(*args, **kwargs))

    return f, leaves(tree)


def differentiable(sample):
    return any(is_inexact(x.dtype) for x in arrays(sample))


def weights(out, seed=0):
    """Return random cotangents for the arrays of a result, on the host."""
    rng = np.random.default_rng(seed)

    def draw(x):
        dtype = str(x.dtype).rpartition(".")[2]
        drawn = rng.normal(size=tuple(x.shape)) + 1j * rng.normal(size=tuple(x.shape))
        return np.asarray(drawn if "complex" in dtype else drawn.real, dtype=dtype if is_inexact(x.dtype) else float)

    return map_leaves(draw, out)


def gradients(f, values, backend, order=1):
    """Return the gradients of a function of arrays, with random cotangents: a list, None for integer arrays."""
    for k in range(order - 1):
        f = gradient_function(f, backend, k)
    out, pullback = bp.vjp(f, *values)
    return out, list(pullback(map_leaves(backend.asarray, weights(out, order - 1))))


def gradient_function(f, backend, seed):
    def g(*values):
        out, pullback = bp.vjp(f, *values)
        return [c for c in pullback(map_leaves(backend.asarray, weights(out, seed))) if c is not None]

    return g


def same(actual, expected, dtype, what, backend):
    """Assert that two results agree in structure, dtype, shape and value."""
    tolerance = TOLERANCES[dtype]
    if not hasattr(expected, "dtype") and not isinstance(expected, (tuple, list)):
        assert actual == expected, what
        return
    found, wanted = leaves(actual), leaves(expected)
    assert len(found) == len(wanted), what
    for a, e in zip(found, wanted, strict=True):
        a = backend.to_numpy(a.data if type(a) is Array else a)
        assert a.dtype == np.asarray(e).dtype, what
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance, err_msg=what)


def skip_where_told(record, backend):
    if backend.name in record.skip:
        pytest.skip(f"{record.name} on {backend.name}: {record.skip[backend.name]}")


def refused(record, backend, sample):
    """Return whether the library's own function cannot take a sample, and say so in a warning."""
    if backend.name == "numpy" or record.name in FUSED or record.name.startswith("_"):
        return False
    try:
        call(record, backend.xp, on(backend, sample))
    except Exception as error:
        warnings.warn(f"{record.name}{sample} left out: {backend.name} says {error!r}", stacklevel=2)
        return True
    return False


# -- the checks


@each
def test_forward_agrees_with_numpy(record, backend):
    skip_where_told(record, backend)
    numpy = load("numpy")
    for dtype, sample in variants(record):
        if refused(record, backend, sample):
            continue
        expected = plain(record, numpy.xp, sample)
        f, values = of_arrays(record, twin(backend.xp), on(backend, sample))
        if differentiable(sample):
            actual, _ = bp.vjp(f, *values)
        else:
            actual = f(*map(bp.constant, values))
        if not values and "dtype" not in sample.kwargs:  # libraries differ in their default dtype
            expected = map_leaves(lambda x, actual=actual: x.astype(backend.to_numpy(actual.data).dtype), expected)
        same(actual, expected, dtype, f"{record.name}{sample} in {dtype}", backend)


@each_differentiable
def test_forward_mode_agrees_with_numpy(record, backend):
    """Which is the derivative of the pullback: every rule is differentiated for its cotangent."""
    skip_where_told(record, backend)
    if record.order < 2:
        pytest.skip(f"{record.name} has no second derivative to speak of")
    for dtype, sample in variants(record):
        if dtype in ("float64", "complex128") and differentiable(sample) and not refused(record, backend, sample):
            f, values = of_arrays(record, twin(backend.xp), on(backend, sample))
            g, host = of_arrays(record, twin("numpy"), sample)
            direction = [d if is_inexact(x.dtype) else None for x, d in zip(host, weights(host), strict=True)]
            found = bp.jvp(f, values, map_leaves(backend.asarray, direction))[1]
            same(found, bp.jvp(g, host, direction)[1], dtype, f"tangent of {record.name}{sample}", backend)


@each_differentiable
def test_gradient_agrees_with_numpy(record, backend):
    """First derivatives in every dtype, second ones in float64; inputs stay as they are, however they lie in memory."""
    skip_where_told(record, backend)
    numpy = load("numpy")
    for dtype, sample in variants(record):
        if not differentiable(sample) or refused(record, backend, sample):
            continue
        what = f"{record.name}{sample} in {dtype}"
        exact = cast(sample, "float64")
        f, values = of_arrays(record, twin(backend.xp), on(backend, sample))
        g, host = of_arrays(record, twin("numpy"), exact)
        for order in range(1, 3 if dtype in ("float64", "complex128") and record.order > 1 else 2):
            before = [x.copy() for x in arrays(sample)]
            _, found = gradients(f, values, backend, order)
            for x, old in zip(values, before, strict=True):
                assert backend.to_numpy(x).tobytes() == old.tobytes(), f"{what} wrote into its input"
            _, expected = gradients(g, host, numpy, order)
            for x, c, e in zip(values, found, expected, strict=True):
                if c is not None:
                    assert c.dtype == x.dtype, f"gradient of {what}"
                    e = np.asarray(e, dtype=backend.to_numpy(x).dtype)
                    same(c, e, dtype, f"derivative {order} of {what}", backend)
        if dtype in ("float64", "complex128"):
            _, found = gradients(f, [strided(x, backend) for x in arrays(sample)], backend)
            for c, e in zip(found, gradients(g, host, numpy)[1], strict=True):
                if c is not None:
                    same(c, e, dtype, f"gradient of {what}, strided", backend)


def strided(host, backend):
    """Return an array with these values, in memory with gaps between its elements; read-only where that can be."""
    if not host.ndim:
        return backend.asarray(host)
    wide = backend.asarray(np.repeat(host, 2, axis=-1))[..., ::2]
    if isinstance(wide, np.ndarray):
        wide.setflags(write=False)
    return wide


@each_fused
def test_in_float32_fused_functions_are_within_1e_5(name, backend):
    """Of the definition in float64 at the same inputs, relative to the largest element: values and gradients."""
    test_in_16_bits_fused_functions_round_once(name, "float32", backend)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@each_fused
def test_in_16_bits_fused_functions_round_once(name, half, backend):
    """Values and gradients are those of the definition in float64 at the same inputs, up to their last rounding.

    On CuPy, where kernels do more in 16 bits, up to 4 units in the last place of the largest.
    """
    dtype, record, kernels = named(np, half), CATALOGUE[name], backend.name == "cupy"
    skip_where_told(record, backend)
    if named(backend.xp, half) is None:
        pytest.skip(f"{backend.name} has no {half}")
    for kind, sample in variants(record):
        if kind != "float64" or not differentiable(sample):
            continue
        given = mapped(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, sample)
        exact = mapped(lambda x: x.astype("f8") if x.dtype == dtype else x, given)
        f, values = of_arrays(record, twin(backend.xp), on(backend, given))
        g, host = of_arrays(record, twin("numpy"), exact)
        out, pullback = bp.vjp(f, *values)
        wanted, exact_pullback = bp.vjp(g, *host)
        seeds = weights(out)
        found = [*leaves(out), *pullback(map_leaves(backend.asarray, seeds))]
        expected = [*leaves(wanted), *exact_pullback(map_leaves(lambda x: x.astype("f8"), seeds))]
        outs = len(leaves(out))
        for k, (a, e) in enumerate(zip(found, expected, strict=True)):
            if a is None:
                continue
            a, what = backend.to_numpy(a), f"{name}{given}, {'result' if k < outs else 'gradient'} {k} in {half}"
            if k >= outs:
                assert a.dtype == backend.to_numpy(values[k - outs]).dtype, what
            else:
                assert a.dtype == (np.float32 if k in FUSED[name].float32_outs else dtype), what
            rtol, atol = HALF_TOLERANCES[str(a.dtype)]
            scale = max(np.max(np.abs(x), initial=0.0) for x in (e, *map(np.float64, leaves(seeds))))
            if half == "float32":
                rtol, atol = 0, 1e-5
            elif kernels:  # which keep products, states and what the backward pass reads in 16 bits
                rtol, atol = 0, 4 * HALF_TOLERANCES[half][0]
            atol *= scale if kernels else max(scale, 1.0)
            np.testing.assert_allclose(a.astype("f8"), e, rtol=rtol, atol=atol, err_msg=what)


@each_differentiable
def test_derivatives_agree_with_finite_differences(record):
    numpy = load("numpy")
    for dtype, sample in variants(record):
        if dtype in ("float64", "complex128") and differentiable(sample):
            kinds = [x.dtype.char for x in leaves(plain(record, numpy.xp, sample))]
            if set(kinds) & set("dD") and not set(kinds) & set("fF"):  # else it casts to a dtype without differences
                f, values = of_arrays(record, twin("numpy"), on(numpy, sample))
                check_grads(f, values, order=record.order, directions=1)


@each_differentiable
def test_nothing_is_read_on_the_host(record):
    if record.host_read:
        pytest.skip(f"{record.name} looks at values")
    backend = load("standin")
    skip_where_told(record, backend)
    for dtype, sample in variants(record):
        if dtype in ("float64", "complex128") and differentiable(sample):
            f, values = of_arrays(record, twin(backend.xp), on(backend, sample))
            with backend.xp.no_host_reads():
                out, pullback = bp.vjp(f, *values)
                pullback(map_leaves(backend.asarray, weights(out)))


@each_differentiable
def test_mixed_dtypes_give_each_argument_its_own(record):
    numpy = load("numpy")
    for dtype, sample in variants(record):
        if dtype not in COMPLEX.values() and sum(x.dtype.kind == "f" for x in arrays(sample)) > 1:
            lowered = next(x for x in arrays(sample) if x.dtype.kind == "f")
            mixed = mapped(lambda x, lowered=lowered: x.astype("f4") if x is lowered else x, sample)
            try:
                expected = plain(record, numpy.xp, mixed)
            except (TypeError, ValueError):
                continue  # the function itself does not mix
            f, values = of_arrays(record, twin("numpy"), mixed)
            out, found = gradients(f, values, numpy)
            same(out, expected, "float32", f"{record.name}{mixed}", numpy)
            assert [(c.dtype, c.shape) for c in found if c is not None] == [
                (x.dtype, x.shape) for x in values if is_inexact(x.dtype)
            ]


@pytest.mark.parametrize("record", [r for r in RECORDS if isinstance(all_rules().get(r.name), Undifferentiable)])
def test_a_derivative_that_does_not_exist_is_refused(record):
    for _, sample in variants(record):
        if differentiable(sample):
            f, values = of_arrays(record, twin("numpy"), sample)
            out, pullback = bp.vjp(f, *values)
            with pytest.raises(NotImplementedError, match=f"{record.name} has no derivative"):
                pullback(weights(out))


# -- another engine: PyTorch's own derivatives of its functions

NOT_PYTORCHS = {
    "linalg.det": "PyTorch's derivative at a singular matrix is not right (tests/rules compare it at others)",
    **dict.fromkeys(["unique_counts", "unique_inverse", "unique_values"], "PyTorch has no derivative"),
}


@pytest.mark.peers
@each_differentiable
def test_gradient_agrees_with_pytorchs_own(record):
    torch = pytest.importorskip("torch")
    backend = load("torch")
    skip_where_told(record, backend)
    if record.name in NOT_PYTORCHS or record.name.startswith("_"):
        pytest.skip(f"{record.name}: {NOT_PYTORCHS.get(record.name, 'no function of PyTorch')}")
    for dtype, sample in variants(record):
        if dtype not in ("float64", "complex128") or not differentiable(sample) or refused(record, backend, sample):
            continue
        f, values = of_arrays(record, twin(backend.xp), on(backend, sample))
        out, found = gradients(f, values, backend)

        f, values = of_arrays(record, backend.xp, on(backend, sample))
        inputs = [x.requires_grad_() for x in values if is_inexact(x.dtype)]
        cotangents = leaves(map_leaves(backend.asarray, weights(out)))
        outputs, cotangents = zip(
            *((y, c) for y, c in zip(leaves(f(*values)), cotangents, strict=True) if y.requires_grad), strict=True
        )
        expected = torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True, materialize_grads=True)
        for c, e in zip([c for c in found if c is not None], expected, strict=True):
            same(c, backend.to_numpy(e), dtype, f"gradient of {record.name}{sample}", backend)


# -- fused functions: the reference, the hand-written passes and the overrides are one function


@each_fused
def test_hand_written_passes_agree_with_the_reference(name, backend):
    record, fused = CATALOGUE[name], FUSED[name]
    skip_where_told(record, backend)
    load_kernels(backend.name)
    implementations = [fused.written, *filter(None, [fused.overrides.get(backend.name)])]
    for dtype, sample in variants(record):
        if not differentiable(sample):
            continue
        sample = on(backend, sample)
        positions = [k for k, x in enumerate(sample.args) if hasattr(x, "dtype") and is_inexact(x.dtype)]
        for wanted in subsets(positions):
            expected, cotangent, derivative = by_reference(fused, sample, wanted, backend)
            needs = tuple(k in wanted for k in range(len(sample.args)))
            for implementation in implementations:
                what = f"{name}{sample} in {dtype}, needs={needs}"
                result = implementation.forward(backend.xp, needs, *sample.args, **sample.kwargs)
                if result is NotImplemented:
                    continue
                out, residuals = result
                same(out, map_leaves(backend.to_numpy, expected), dtype, what, backend)
                if wanted:
                    found = implementation.backward(backend.xp, needs, cotangent, residuals, **sample.kwargs)
                    for k in wanted:
                        same(found[k], backend.to_numpy(derivative[k]), dtype, f"{what}, argument {k}", backend)


def subsets(positions):
    """Yield none, each alone, all but one, and all of the positions."""
    chosen = {(), tuple(positions)}
    chosen |= {(k,) for k in positions} | {tuple(p for p in positions if p != k) for k in positions}
    return sorted(chosen)


def by_reference(fused, sample, wanted, backend):
    """Return the reference's value, a cotangent, and its derivatives by the rules, by argument."""

    def f(*values):
        args = [bp.constant(x) if values and hasattr(x, "dtype") else x for x in sample.args]
        for k, v in zip(wanted, values, strict=True):
            args[k] = v
        return fused.reference(*args, **sample.kwargs)

    if not wanted:
        return f(), None, {}
    out, pullback = bp.vjp(f, *(sample.args[k] for k in wanted))
    cotangent = map_leaves(backend.asarray, weights(out))
    return out, cotangent, dict(zip(wanted, pullback(cotangent), strict=True))


def test_a_wrong_hand_written_backward_is_found(monkeypatch):
    fused = FUSED["dense"]

    def wrong(xp, needs, g, residuals, **static):
        dx, dW, db = right(xp, needs, g, residuals, **static)
        return dx, dW if dW is None else dW * (1 + 1e-6), db

    right = fused.written.backward
    monkeypatch.setattr(fused, "written", fused.written._replace(backward=wrong))
    with pytest.raises(AssertionError, match="argument 1"):
        test_hand_written_passes_agree_with_the_reference("dense", load("standin"))
