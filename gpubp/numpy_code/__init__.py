"""NumPy code, differentiable as it stands: ufuncs, functions and array methods called on an `Array`.

NumPy asks an `Array` what to do when one of its functions is given one. The answer is looked up here: each
function is written in a few lines of the Array API standard, with the differentiable twin of the array's library
as its namespace. So there are no derivatives in this package, and NumPy code runs wherever the array lives.
"""

from .dispatch import call_function as call_function
from .dispatch import call_torch_operator as call_torch_operator
from .dispatch import method as method
from .dispatch import supported as supported
from .ufuncs import call_ufunc as call_ufunc
