"""Functions that are given to be called: what can be told of them before a byte is sent."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def gives_awaitables(function: Any) -> bool:
    """Whether a call must be awaited: ``async def``, also behind wrappers, or an object that is called so."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    call = getattr(type(function), "__call__", None)  # noqa: B004  # its kind is asked for, not whether it is there
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def check_callback(what: str, function: Any) -> None:
    """Refuse what would never run: callbacks are called, not awaited.

    Raises:
        TypeError: a coroutine function, or nothing that can be called.
    """
    if function is None:
        return
    if not callable(function):
        raise TypeError(f"{what} must be a function, not {type(function).__name__}")
    if gives_awaitables(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{what} must be a plain function: it is called, not awaited")
