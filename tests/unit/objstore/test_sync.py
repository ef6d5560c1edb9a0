"""The blocking API never drifts from the asyncio API: the same methods, with the same arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest

import natsproto
import objstore.sync
from natsproto.jetstream.fast_publisher import FastPublisher
from natsproto.jetstream.message import JetStreamMsg
from natsproto.jetstream.pull import PullConsumer
from natsproto.jetstream.push import PushConsumer

TWINS: dict[type, type] = {
    objstore.sync.Client: natsproto.Client,
    objstore.sync.FastPublisher: FastPublisher,
    objstore.sync.JetStreamContext: natsproto.JetStreamContext,
    objstore.sync.JetStreamMsg: JetStreamMsg,
    objstore.sync.Msg: natsproto.Msg,
    objstore.sync.ObjectReader: objstore.ObjectReader,
    objstore.sync.ObjectStore: objstore.ObjectStore,
    objstore.sync.ObjectWriter: objstore.ObjectWriter,
    objstore.sync.PullConsumer: PullConsumer,
    objstore.sync.PushConsumer: PushConsumer,
    objstore.sync.Responses: natsproto.Responses,
    objstore.sync.Subscription: natsproto.Subscription,
    objstore.sync.Upload: objstore.Upload,
    objstore.sync.Watcher: objstore.Watcher,
}

LEFT_OUT = {
    natsproto.Client: {"request_frame", "reply_length", "start_request"},
    natsproto.JetStreamContext: {"answers_are_known", "publish_frame", "publish_window", "subject"},
    natsproto.Subscription: {
        "deliver", "on_disconnect", "on_end", "on_reconnect", "on_refused", "place",
        "base", "delivered", "max_msgs", "queue", "sid", "subject",
        "pending_bytes_limit", "pending_msgs_limit",
    },
    objstore.ObjectStore: {"bound_bucket"},
    JetStreamMsg: {"frame"},
    PushConsumer: {"on_delivery", "on_failure", "on_end", "on_reconnect", "on_status", "start"},
}  # fmt: skip
"""Methods for the layers of the library, and settings that cannot be changed across threads."""

RENAMED = {"aclose": "close", "caught_up": "wait_caught_up"}
DUNDERS = {
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}

ADDED = {
    objstore.sync.Client: {"object_store"},
    objstore.sync.ObjectStore: {"twin"},
    objstore.sync.ObjectReader: {"closed", "readable", "seekable", "writable"},
    objstore.sync.ObjectWriter: {"flush", "info", "readable", "seekable", "writable"},
    objstore.sync.PushConsumer: {"messages"},
    objstore.sync.Subscription: {"messages"},
    objstore.sync.Watcher: {"changes", "next"},
}
"""What only the blocking API has: what files have, and iterators that end when nothing comes."""

RESULTS = {
    "AsyncGenerator[ObjectInfo, None]": "Iterator[ObjectInfo]",
    "AsyncGenerator[StoredMessage, None]": "Iterator[StoredMessage]",
    "AsyncGenerator[JetStreamMsg, None]": "Iterator[JetStreamMsg]",
    "OpenReader": "ObjectReader",
}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def shared() -> list[Any]:
    """Each blocking class with its twin, and the names of a method of both."""
    return [
        pytest.param(cls, twin, name, id=f"{cls.__name__}.{name}")
        for cls, twin in TWINS.items()
        for name in sorted(public(twin) - LEFT_OUT.get(twin, set()))
        if callable(getattr(twin, name))
    ]


@pytest.mark.parametrize("cls", TWINS)
def test_the_same_names(cls: type) -> None:
    twin = TWINS[cls]
    wanted = {RENAMED.get(name, name) for name in public(twin) - LEFT_OUT.get(twin, set())}
    assert public(cls) - ADDED.get(cls, set()) == wanted
    for name, blocking in DUNDERS.items():
        if hasattr(twin, name):
            assert hasattr(cls, blocking), blocking


@pytest.mark.parametrize(("cls", "twin", "name"), shared())
def test_the_same_arguments(cls: type, twin: type, name: str) -> None:
    """Names, kinds, defaults and types, and the result."""
    asynchronous = inspect.signature(inspect.unwrap(getattr(twin, name)))
    function: Callable[..., object] = getattr(cls, RENAMED.get(name, name))
    blocking = inspect.signature(function)
    assert list(blocking.parameters.values()) == list(asynchronous.parameters.values())
    result = asynchronous.return_annotation
    assert blocking.return_annotation == RESULTS.get(result, result)
    assert not inspect.iscoroutinefunction(function)


@pytest.mark.parametrize("cls", TWINS)
def test_attributes(cls: type) -> None:
    """Those that instances get have the same types."""
    source = inspect.getsource(TWINS[cls])
    for name in ("nuid", "token", "domain", "prefix", "timeout", "metadata"):
        if f"self.{name}:" in source:
            assert f"self.{name}:" in inspect.getsource(cls)


def test_every_class_is_compared() -> None:
    exported = {getattr(objstore.sync, name) for name in objstore.sync.__all__}
    assert exported - {objstore.sync.connect, objstore.sync.timeout} == set(TWINS)


@pytest.mark.parametrize("cls", TWINS)
def test_no_method_is_made_up(cls: type) -> None:
    """Each is written out, so that editors and type checkers see it."""
    assert not hasattr(cls, "__getattr__")
    for name in public(cls):
        function = inspect.getattr_static(cls, name)
        if isinstance(function, property):
            function = function.fget
        if inspect.isfunction(function):
            assert function.__code__.co_filename.endswith(".py")
            assert "return" in typing.cast(Any, function).__annotations__, name
