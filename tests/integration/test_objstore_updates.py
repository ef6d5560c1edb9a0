"""Updates of buckets whose streams another tool has configured: only what is asked for changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.jetstream.context import JetStreamContext
from natsproto.server import LocalServer
from objstore import BadBucketError, BucketSealedError, ObjectStore, ObjectStoreConfig, sync
from objstore.cli.main import main
from objstore.format.buckets import bucket_config
from support.objects import pattern

ACCOUNTS = """accounts {
    HUB { jetstream: enabled, users: [{user: hub, password: p}], exports: [
        {service: "$JS.API.>", response: stream}, {service: "$JS.FC.>"}, {stream: "hub.deliver.>"} ] }
    A { jetstream: enabled, users: [{user: a, password: p}], imports: [
        {service: {account: HUB, subject: "$JS.API.>"}, to: "hub.API.>"},
        {stream: {account: HUB, subject: "hub.deliver.>"}} ] }
}"""
"""A imports the JetStream API of HUB, under a prefix."""

DATA = pattern(300_000)


async def described(js: JetStreamContext, url: str) -> None:
    await js.update_object_store(bucket="agg", description="new")


async def described_blocking(js: JetStreamContext, url: str) -> None:
    def call() -> None:
        with sync.connect(url, user="a", password="p") as client:
            client.jetstream().update_object_store("agg", description="new")

    await asyncio.to_thread(call)


async def described_by_command(js: JetStreamContext, url: str) -> None:
    words = ["-s", url, "--user", "a", "--password", "p", "bucket", "edit", "agg", "--description", "new"]
    assert await asyncio.to_thread(main, words) == 0


async def with_more_of_everything(js: JetStreamContext, url: str) -> None:
    await js.update_object_store(bucket="agg", description="new", max_bytes=10**8, allow_direct=True)


async def as_a_whole(js: JetStreamContext, url: str) -> None:
    there = bucket_config((await js.stream_info("OBJ_agg")).config.to_json())
    await js.update_object_store(replace(there, description="new"))


async def created_or_updated(js: JetStreamContext, url: str) -> None:
    there = bucket_config((await js.stream_info("OBJ_agg")).config.to_json())
    await js.create_or_update_object_store(replace(there, description="new"))


async def with_its_sources(js: JetStreamContext, url: str) -> None:
    sources = (await (await js.object_store("agg")).status()).sources
    await js.update_object_store(bucket="agg", description="new", sources=sources)


KEYWORDS = [described, described_blocking, described_by_command, with_more_of_everything]
SOURCES_NAMED = [as_a_whole, created_or_updated, with_its_sources]
EVERY_WAY = [
    (server, origin, way)
    for server, origin in (("new", "media"), ("new", "agg"), ("old", "agg"))  # old ones map no subjects
    for way in KEYWORDS + SOURCES_NAMED
]


async def filled(store: ObjectStore, name: str) -> None:
    async with asyncio.timeout(30):
        async for info in store.watch():
            if info is not None and info.name == name:
                return


@pytest.mark.parametrize(
    ("server", "origin", "way"),
    EVERY_WAY,
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_source_in_another_account(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server: str,
    origin: str,
    way: Callable[[JetStreamContext, str], Awaitable[None]],
) -> None:
    """It reads as a bucket of this account. Of a bucket here, which is called so, not an object comes."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    binary = Path(request.getfixturevalue(f"{server}_server").binary.path)
    async with (
        LocalServer(binary=binary, config=ACCOUNTS) as running,
        natsproto.connect(running.url, user="hub", password="p") as hub,
        natsproto.connect(running.url, user="a", password="p") as client,
    ):
        there = await hub.jetstream().create_object_store(origin)
        await there.put("report", DATA)
        js = client.jetstream()
        source: dict[str, object] = {
            "name": f"OBJ_{origin}",
            "external": {"api": "hub.API", "deliver": "hub.deliver"},
        }
        if origin != "agg":
            await (await js.create_object_store(origin)).put("report", b"local")
            source["subject_transforms"] = [{"src": f"$O.{origin}.>", "dest": "$O.agg.>"}]
        await js.create_object_store("agg")
        made = (await js.stream_info("OBJ_agg")).config.to_json()
        await js.update_stream({**made, "sources": [source], "max_msg_size": 2_000_000})
        store = await js.object_store("agg")
        await filled(store, "report")
        before = (await js.stream_info("OBJ_agg")).config.to_json()
        assert before["sources"] == [source]

        if origin == "agg" and way in SOURCES_NAMED:
            with pytest.raises(BadBucketError, match="its own source"):
                await way(js, running.url)
            assert (await js.stream_info("OBJ_agg")).config.to_json() == before
            return
        await way(js, running.url)
        after = (await js.stream_info("OBJ_agg")).config.to_json()
        changed = {"description"} | ({"max_bytes"} if way is with_more_of_everything else set())
        assert {key for key in after if after[key] != before.get(key)} == changed
        assert before.keys() <= after.keys()
        await there.put("later", b"later")
        await filled(store, "later")
        assert await store.get("report") == DATA
        assert await store.names() == ["later", "report"]

        if way is described:
            await store.seal()
            sealed = (await js.stream_info("OBJ_agg")).config.to_json()
            assert sealed["sources"] == [source]
            assert sealed["max_msg_size"] == 2_000_000


SHAPES: dict[str, dict[str, Any]] = {
    "from a sequence": {"opt_start_seq": 10_000},
    "from a time": {"opt_start_time": "2099-01-01T00:00:00Z"},
    "some subjects": {"filter_subject": "$O.media.M.>"},
    "other subjects": {"subject_transforms": [{"src": "$O.media.M.>", "dest": "$O.agg.M.>"}]},
    "several": {
        "subject_transforms": [
            {"src": "$O.media.M.>", "dest": "$O.agg.M.>"},
            {"src": "$O.media.C.>", "dest": "$O.agg.C.>"},
        ]
    },
}


@pytest.mark.parametrize(("kind", "direct"), [("source", True), ("mirror", True), ("mirror", False)])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_part_of_another_bucket(js: JetStreamContext, shape: str, kind: str, direct: bool) -> None:
    """A part of its messages, as a ``BucketSource`` cannot say it."""
    await js.create_object_store("media", allow_direct=direct)  # servers set mirror_direct to the same
    origin = {"name": "OBJ_media", **SHAPES[shape]}
    made: dict[str, Any] = {"name": "OBJ_agg", "allow_direct": True}
    if kind == "mirror":
        made["mirror"] = origin
    else:
        made |= {"subjects": ["$O.agg.C.>", "$O.agg.M.>"], "sources": [origin], "allow_rollup_hdrs": True}
    before = (await js.create_stream(made)).config.to_json()
    there = bucket_config(before)
    await js.update_object_store(bucket="agg", description="new")
    expected = {**before, "description": "new"}
    assert (await js.stream_info("OBJ_agg")).config.to_json() == expected
    await js.update_object_store(bucket="agg")
    await js.update_object_store(ObjectStoreConfig("agg", "last", mirror=there.mirror, sources=there.sources))
    expected |= {"description": "last", "discard": "new"}
    assert (await js.stream_info("OBJ_agg")).config.to_json() == expected
    if kind == "mirror":
        await js.update_object_store(bucket="agg", allow_direct=False)
        await js.update_object_store(bucket="agg", allow_direct=True)
        assert (await js.stream_info("OBJ_agg")).config.to_json() == expected
    else:
        await js.create_object_store("more")
        new = not js.client.server_info["version"].startswith("2.9.")
        if new:
            await js.update_object_store(bucket="agg", sources=[*there.sources, "more"])
            transforms = [{"src": "$O.more.>", "dest": "$O.agg.>"}]
            more = {"name": "OBJ_more", "subject_transforms": transforms}
            assert (await js.stream_info("OBJ_agg")).config.sources == [*before["sources"], more]
            await js.update_object_store(bucket="agg", sources=["more"])
            assert (await js.stream_info("OBJ_agg")).config.sources == [more]
        await js.update_object_store(bucket="agg", sources=[])
        assert not (await js.stream_info("OBJ_agg")).config.sources
        await js.delete_object_store("more")
    for bucket in ("agg", "media"):
        await js.delete_object_store(bucket)


async def test_a_keyword_does_not_mend(js: JetStreamContext, bucket_name: str) -> None:
    """The name alone does."""
    subjects = [f"$O.{bucket_name}.>"]
    made = {"name": f"OBJ_{bucket_name}", "subjects": subjects, "discard": "old", "max_bytes": 10**6}
    await js.create_stream(made)
    await js.update_object_store(bucket=bucket_name, description="d")
    config = (await js.stream_info(f"OBJ_{bucket_name}")).config
    assert (config.subjects, config.discard, config.allow_rollup_hdrs) == (subjects, "old", False)
    assert config.allow_direct is False
    await js.update_object_store(bucket=bucket_name)
    config = (await js.stream_info(f"OBJ_{bucket_name}")).config
    assert (config.discard, config.allow_rollup_hdrs, config.description) == ("new", True, "d")
    assert config.subjects == [f"$O.{bucket_name}.C.>", f"$O.{bucket_name}.M.>"]
    store = await js.object_store(bucket_name)
    await store.seal()
    for changes in ({"description": "e"}, {}):
        with pytest.raises(BucketSealedError):
            await js.update_object_store(bucket=bucket_name, **changes)
    await js.delete_object_store(bucket_name)
