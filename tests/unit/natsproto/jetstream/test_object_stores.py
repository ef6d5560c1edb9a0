"""The bridge to objstore: each function hands on what it was given; the import comes when it is used."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import objstore.manager
from natsproto.jetstream import object_stores
from natsproto.jetstream.context import JetStreamContext
from support.fake_session import FakeServer

CALLS: dict[str, tuple[Any, ...]] = {
    "open_bucket": ("b", True),
    "create_bucket": (None, {"bucket": "b"}),
    "update_bucket": (None, {"bucket": "b"}),
    "create_or_update_bucket": (None, {"bucket": "b"}),
    "bucket_names": (),
    "bucket_statuses": (),
    "delete_bucket": ("b",),
}


@pytest.mark.parametrize("name", CALLS)
async def test_it_hands_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    js = FakeServer().client.jetstream()
    seen: list[tuple[Any, ...]] = []

    async def manager(*args: Any) -> str:
        seen.append(args)
        return "result"

    monkeypatch.setattr(objstore.manager, name, manager)
    assert await getattr(object_stores, name)(js, *CALLS[name]) == "result"
    assert seen == [(js, *CALLS[name])]


def test_no_other_function_is_there() -> None:
    functions = {name for name, value in vars(object_stores).items() if callable(value) and name[0].islower()}
    assert functions - {"annotations"} == set(CALLS)


async def test_the_context_uses_it() -> None:
    """A name that is no bucket's is refused before anything is sent."""
    server = FakeServer()
    js = JetStreamContext(server.client)
    for call in (js.object_store("a.b"), js.create_object_store(bucket=""), js.delete_object_store(">")):
        with pytest.raises(ValueError, match="bucket"):
            await call
    assert server.pubs == []


def test_objstore_is_not_loaded_before() -> None:
    program = (
        "import sys, natsproto, natsproto.jetstream.context\n"
        "import natsproto.jetstream.object_stores\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'objstore']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
