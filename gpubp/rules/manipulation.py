"""Functions that move elements and change shapes."""

from __future__ import annotations

from typing import Any

from .registry import primitive

primitive("astype", lambda xp, g, *_, **__: g)
primitive("reshape", lambda xp, g, _, _x, *__, **___: xp.reshape(g, _x.shape))
primitive("permute_dims", lambda xp, g, _, __, axes: xp.permute_dims(g, tuple(axes.index(k) for k in range(len(axes)))))
