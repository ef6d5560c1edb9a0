"""What cannot be read is reported."""

from __future__ import annotations

from collections import Counter

import pytest

from objstore import InvalidMeta
from objstore.format.codec import MetaDecodeError
from objstore.format.naming import decode_meta_name, meta_subject
from objstore.listing.decode import bounded_warnings, report_invalid
from support.memory_server import MemoryServer


def test_a_callback_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def raises(invalid: InvalidMeta) -> None:
        raise ValueError("of the application")

    report_invalid(raises, InvalidMeta("$O.b.M.x", 1, MetaDecodeError("no JSON")))
    assert caplog.records[0].getMessage() == "on_invalid raised"


def test_a_watch_warns_of_some(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may write one meta decides how many cannot be read."""
    warn = bounded_warnings()
    for revision in range(1000):
        warn(InvalidMeta("$O.b.M.x", revision, MetaDecodeError("no JSON")))
    texts = [record.getMessage() for record in caplog.records]
    assert (
        texts[0] == "a meta message on '$O.b.M.x' (revision 0) is skipped: unreadable meta message: no JSON"
    )
    assert 11 <= len(texts) <= 100


async def test_of_a_prefix_only_its_own_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Who may write other names does not decide whether this list was complete."""
    server = MemoryServer()
    store = await server.bucket()
    for name in ("p", "p/a", "q/a", "photos"):
        server.put_raw(meta_subject("b", name), b"no JSON")
    server.put_raw("$O.b.M.!", b"no JSON")
    told: list[InvalidMeta] = []
    await store.list(prefix="p/", on_invalid=told.append)
    [info async for info in store.iter(prefix="p/", on_invalid=told.append)]
    assert Counter(decode_meta_name(each.subject) for each in told) == {"p/a": 2, None: 2}
    await store.list(prefix="q/")
    assert len(caplog.records) == 2
    told.clear()
    await store.list(on_invalid=told.append)
    assert len(told) == 5
    await server.client.close()
