"""Many single messages: how many are requested at once depends on how large they are."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from natsproto.jetstream import in_flight as counting
from natsproto.jetstream.in_flight import in_flight
from objstore import ObjectStore
from objstore.bucket.binding import bind
from objstore.bucket.bucket import Bucket
from objstore.format.naming import meta_subject
from objstore.listing import newest
from objstore.listing.newest import AT_ONCE, each_newest
from support.memory_server import MemoryServer


async def test_each(server: MemoryServer, store: ObjectStore, bucket: Bucket) -> None:
    infos = [await store.put(f"n{number}", b"") for number in range(5)]
    subjects = [meta_subject("b", info.name) for info in infos]
    asked = [*subjects[:3], "$O.b.M.nothing", "$O.b.M.\udcff", *subjects[3:]]
    found = {
        subject: message and message.seq async for subject, message in each_newest(bucket, asked, at_once=2)
    }
    assert found == {**{subjects[n]: infos[n].revision for n in range(5)}, "$O.b.M.nothing": None}
    answers = each_newest(bucket, subjects)
    await anext(answers)
    await answers.aclose()
    assert len(server.connection.mux) == 0


@pytest.mark.parametrize(
    ("size", "number", "payload", "most", "again"),
    [
        (100, 700, 256 * 1024, AT_ONCE, 30),
        (100, 700, 1024 * 1024, 17, 30),  # the first time larger ones may come behind them
        (1024 * 1024 - 512, 40, 1024 * 1024, 8, 6),
        (100, 700, 64 * 1024 * 1024, 17, 30),  # few are that large
    ],
)
async def test_others_decide_how_large_they_are(
    server: MemoryServer,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    number: int,
    payload: int,
    most: int,
    again: int,
) -> None:
    monkeypatch.setattr(Bucket, "max_message", payload)
    parts: list[int] = []
    read = newest._newest_of

    async def noted(bucket: Bucket, subjects: list[str], *args: object) -> object:
        parts.append(len(subjects))
        return await read(bucket, subjects, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(newest, "_newest_of", noted)
    subjects = [meta_subject("b", f"{each}") for each in range(number)]
    for subject in subjects:
        server.put_raw(subject, b"x" * size)
    found = [subject async for subject, message in each_newest(bucket, subjects) if message is not None]
    assert found == subjects
    assert parts[0] == min(8, most), "nothing is known yet"
    assert max(parts) == most
    assert all(later <= earlier * 8 / 7 + 1 for earlier, later in pairwise(parts))
    parts.clear()
    assert len([each async for each in each_newest(bucket, subjects[:30])]) == 30
    assert max(parts) == again
    assert in_flight(bucket.connection).bytes == 0


@pytest.mark.parametrize("before", ["nothing", "few", "parts", "all"])
async def test_large_ones_behind_small_ones(
    server: MemoryServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Several lists at once, by whatever handle, whatever was read before: not too many come at once."""
    for module in (newest, counting):
        for name in {"LIMIT", "FIRST", "SMALL", "UNKNOWN", "BYTES_AT_ONCE"} & {*vars(module)}:
            monkeypatch.setattr(module, name, getattr(module, name) // 10)
    small = [meta_subject("b", f"s{each}") for each in range(300)]
    large = [meta_subject("b", f"l{each}") for each in range(30)]
    for subjects, data in ((small, b"x"), (large, b"x" * 70_000)):
        for subject in subjects:
            server.put_raw(subject, data)
    read, waiting, most = newest._newest_of, 0, 0

    async def noted(bucket: Bucket, subjects: list[str], *args: object) -> object:
        nonlocal waiting, most
        asked = len(set(subjects) & {*large})
        waiting += asked
        most = max(most, waiting)
        try:
            return await read(bucket, subjects, *args)  # type: ignore[arg-type]
        finally:
            waiting -= asked

    monkeypatch.setattr(newest, "_newest_of", noted)

    async def listed(subjects: list[str]) -> int:
        handle = await bind(server.js, "b")
        return len([each async for each in each_newest(handle, subjects)])

    if before == "few":
        for _ in range(5):
            await listed(small)
    elif before == "parts":  # of a list, the first of which say nothing of the last
        for at in range(0, 300, 50):
            assert len([each async for each in each_newest(bucket, small[at : at + 50], whole=False)]) == 50
    elif before == "all":
        await listed([*small, *large])
    if before == "parts":
        await asyncio.gather(*(anext(aiter(each_newest(bucket, large, whole=False))) for _ in range(6)))
    assert set(await asyncio.gather(*(listed([*small, *large]) for _ in range(3)))) == {330}
    assert most <= newest.LIMIT // 70_000
    assert in_flight(bucket.connection).bytes == 0


async def test_what_has_come_counts_for_lists_under_way(server: MemoryServer, bucket: Bucket) -> None:
    """As soon as it has come: the other lists need not find out for themselves."""
    subjects = [meta_subject("b", f"n{each}") for each in range(30)]
    for subject in subjects:
        server.put_raw(subject, b"x" * 300_000)
    answers = each_newest(bucket, subjects)
    await anext(answers)
    assert newest._known.get(bucket.connection, (bucket.stream, "M")) == (512 + 400_000, 0)
    await answers.aclose()
