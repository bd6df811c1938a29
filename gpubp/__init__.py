"""gpubp: backpropagation on whatever Array API library the data lives in.

Transforms: `grad`, `value_and_grad`, `vjp`, `jvp`, `jacobian`, `hessian`, `hvp`, `checkpoint`, `stop_gradient`, and
`custom_vjp` and `fused` for derivatives written by hand. Networks: `nn`, `functions`, `losses`, `optim`, `data`, `fit`,
`evaluate`, `lr_finder`, `metrics`, `save`, `load`, `interop`. Arrays: `device`, `to_device`, `to_numpy`, `from_dlpack`,
`array_namespace`, `constant`, `tree`. Precision: `mixed`, `matmul_precision`. Proof: `testing`.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from . import tree as tree
from .capture import capture as capture
from .device import Device as Device
from .device import device as device
from .device import from_dlpack as from_dlpack
from .device import to_numpy as to_numpy
from .fused import custom_vjp as custom_vjp
from .fused import fused as fused
from .namespace import array_namespace as array_namespace
from .namespace import constant as constant
from .precision import mixed as mixed
from .products import matmul_precision as matmul_precision
from .transform import checkpoint as checkpoint
from .transform import grad as grad
from .transform import hessian as hessian
from .transform import hvp as hvp
from .transform import jacobian as jacobian
from .transform import jvp as jvp
from .transform import stop_gradient as stop_gradient
from .transform import value_and_grad as value_and_grad
from .transform import vjp as vjp
from .tree import to_device as to_device

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import data as data
    from . import functions as functions
    from . import interop as interop
    from . import losses as losses
    from . import nn as nn
    from . import optim as optim
    from . import testing as testing
    from . import training as training
    from .training import evaluate as evaluate
    from .training import fit as fit
    from .training import load as load
    from .training import lr_finder as lr_finder
    from .training import metrics as metrics
    from .training import save as save

_MODULES = ("data", "functions", "interop", "losses", "nn", "optim", "testing", "training")
_FROM_TRAINING = ("evaluate", "fit", "load", "lr_finder", "metrics", "save")


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import gpubp`` stays fast."""
    if name in _MODULES:
        value: Any = _import_module(f".{name}", __name__)
    elif name in _FROM_TRAINING:
        value = getattr(_import_module(".training", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


__all__ = [
    "Device",
    "array_namespace",
    "capture",
    "checkpoint",
    "constant",
    "custom_vjp",
    "device",
    "from_dlpack",
    "fused",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "matmul_precision",
    "mixed",
    "stop_gradient",
    "to_device",
    "to_numpy",
    "tree",
    "value_and_grad",
    "vjp",
    *_MODULES,
    *_FROM_TRAINING,
]


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
