"""Each verb of the object store is an operation of its client; checks of the callbacks given to it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from natsproto.aio.client import Client

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes done so far and the total (``None`` = unknown)."""


class HasClient(Protocol):
    """An object whose methods are operations."""

    @property
    def client(self) -> Client: ...


Owner = TypeVar("Owner", bound=HasClient)
P = ParamSpec("P")
T = TypeVar("T")


def operation(
    verb: Callable[Concatenate[Owner, P], Coroutine[object, None, T]],
) -> Callable[Concatenate[Owner, P], Coroutine[object, None, T]]:
    """Mark a method as an operation of ``self.client``: drain() lets it finish, close() lets it clean up.

    A call from another event loop or thread than the client's is refused at once.
    """

    @functools.wraps(verb)
    async def run(self: Owner, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.client.connection.operation():
            return await verb(self, *args, **kwargs)

    return run


def gives_awaitables(function: Callable[..., object]) -> bool:
    """Whether a call must be awaited: ``async def``, also behind wrappers, or as an object's ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    call = getattr(type(function), "__call__", None)  # noqa: B004  # to see whether it is async, not whether it exists
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def check_callback(what: str, function: object) -> None:
    """Refuse a function that would never run: callbacks are called, not awaited.

    Raises:
        TypeError: it is a coroutine function, or not callable.
    """
    if function is None:
        return
    if not callable(function):
        raise TypeError(f"{what} must be a function, not {type(function).__name__}")
    if gives_awaitables(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{what} must be a plain function: it is called, not awaited")
