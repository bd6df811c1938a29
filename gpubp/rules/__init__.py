"""The derivative of every function of the standard, one file a chapter."""

from . import creation as creation
from . import elementwise as elementwise
from . import fft as fft
from . import indexing as indexing
from . import linear_algebra as linear_algebra
from . import manipulation as manipulation
from . import sorting_searching as sorting_searching
from . import statistical as statistical
from .registry import RULES as RULES
