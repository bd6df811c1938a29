"""gpubp: train neural networks by backpropagation on whatever array library the data lives in."""

from .device import device as device
from .device import from_dlpack as from_dlpack
from .device import to_numpy as to_numpy
from .fused import custom_vjp as custom_vjp
from .fused import fused as fused
from .namespace import array_namespace as array_namespace
from .namespace import constant as constant
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
