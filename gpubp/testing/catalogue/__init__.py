"""The op catalogue, complete: importing it imports every chapter."""

import pkgutil
from importlib import import_module

from .record import CATALOGUE as CATALOGUE
from .record import Record as Record
from .record import Sample as Sample
from .record import record as record

for _chapter in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_chapter.name}")
