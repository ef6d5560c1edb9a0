"""What every verb of the object store is: an operation of its client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast

Verb = TypeVar("Verb", bound=Callable[..., Coroutine[Any, Any, Any]])


def operation(verb: Verb) -> Verb:
    """Mark a method as an operation of ``self.client``: drain() lets it end, close() lets it clean up.

    In another event loop or thread than the client's it is refused at once.
    """

    @wraps(verb)
    async def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.client._connection.operation():
            return await verb(self, *args, **kwargs)

    return cast(Verb, run)
