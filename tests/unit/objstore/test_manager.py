"""Buckets: made, opened, changed, deleted and enumerated; refusals in the object store's words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from natsproto.errors import PermissionsViolationError, StaleConnectionError, UnsupportedFeatureError
from natsproto.wire import Pub
from objstore import (
    BadBucketError,
    BucketAlreadyExistsError,
    BucketNotFoundError,
    BucketSealedError,
    BucketSource,
    ForeignBucketError,
    ObjectStoreConfig,
    Placement,
    StoreFullError,
)
from objstore import manager as module
from objstore.manager import (
    LOOKS_AT_ONCE,
    bucket_names,
    bucket_of,
    bucket_statuses,
    build_config,
    create_bucket,
    create_or_update_bucket,
    delete_bucket,
    open_bucket,
    update_bucket,
)
from support.memory_server import NO_STREAM, SILENCE, MemoryServer, error


async def test_made_and_opened(server: MemoryServer) -> None:
    with pytest.raises(BucketNotFoundError):
        await open_bucket(server.js, "b")
    assert server.streams == {}, "it is never made by opening"
    store = await create_bucket(
        server.js, None, {"bucket": "b", "ttl": timedelta(hours=1), "metadata": {"k": "v"}}
    )
    config = server.stream().config
    assert config["subjects"] == ["$O.b.C.>", "$O.b.M.>"]
    assert (config["max_age"], config["allow_rollup_hdrs"], config["discard"]) == (
        3_600_000_000_000,
        True,
        "new",
    )
    await store.put("a", b"x")
    assert await (await open_bucket(server.js, "b")).get("a") == b"x"
    again = await create_bucket(
        server.js, ObjectStoreConfig("b", ttl=timedelta(hours=1), metadata={"k": "v"})
    )
    assert await again.get("a") == b"x", "the same configuration again opens it"
    with pytest.raises(BucketAlreadyExistsError):
        await create_bucket(server.js, ObjectStoreConfig("b", ttl=timedelta(hours=2)))


async def test_opened_or_made(server: MemoryServer) -> None:
    store = await open_bucket(server.js, "b", create=True)
    await store.put("a", b"x")
    assert await (await open_bucket(server.js, "b", create=True)).get("a") == b"x"
    await create_bucket(server.js, ObjectStoreConfig("c", ttl=timedelta(hours=1)))
    assert (await (await open_bucket(server.js, "c", create=True)).status()).ttl == timedelta(hours=1)


async def test_opened_while_another_makes_it(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another configuration, just after the first look: it is the bucket of that name."""

    async def first(js: Any, bucket: str) -> Any:
        monkeypatch.undo()
        await create_bucket(js, ObjectStoreConfig(bucket, ttl=timedelta(hours=1)))
        raise BucketNotFoundError("not there yet", bucket=bucket)

    monkeypatch.setattr(module, "bind", first)
    store = await open_bucket(server.js, "b", create=True)
    assert (await store.status()).ttl == timedelta(hours=1)


async def test_the_name_alone(server: MemoryServer) -> None:
    await create_bucket(server.js, "b", {"description": "d"})
    await update_bucket(server.js, "b", {"ttl": timedelta(hours=1)})
    assert (server.stream().config["description"], server.stream().config["max_age"]) == ("d", 3600 * 10**9)
    await create_or_update_bucket(server.js, "b")
    assert not server.stream().config.get("description")
    assert await (await server.js.create_object_store("c")).list() == []
    for call in (create_bucket, update_bucket, create_or_update_bucket):
        with pytest.raises(TypeError, match="given twice"):
            await call(server.js, "b", {"bucket": "b"})


async def test_the_configuration_of_another_bucket_does_not_come_back(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same name, behind another API: whoever sees the request can have that one answer it, too."""
    monkeypatch.setattr("natsproto.jetstream.all_answers.WAIT", 0.05)
    await create_bucket(server.js, ObjectStoreConfig("b"))
    info = server.stream().info({})
    other = {**info, "created": "2020-01-01T00:00:00Z", "config": {**info["config"], "max_age": 2 * 10**9}}
    asked = server.on_pub

    def both(pub: Pub) -> None:
        if pub.subject.startswith(b"$JS.API.STREAM.INFO."):
            server.answer(pub, other)
        asked(pub)

    server.session.on_pub = both
    del server.session.info["jetstream"]  # else only the server's own domain counts
    with pytest.raises(ForeignBucketError, match="nothing was changed"):
        await update_bucket(server.js, "b", {"description": "d"})
    assert "STREAM.UPDATE" not in server.verbs()
    server.session.on_pub = asked
    store = await update_bucket(server.js, "b", {"description": "d"})
    assert (await store.status()).description == "d"
    assert server.stream().config.get("max_age", 0) == 0


async def test_a_retry_in_another_domain(server: MemoryServer) -> None:
    """The client has been connected to another domain: that one's bucket of the name stays as it is."""
    await create_bucket(server.js, "b")
    info = {**server.stream().info({}), "domain": "two"}

    def hook(verb: str, body: Any) -> Any:
        if server.session.info.get("domain"):
            return info
        if verb == "STREAM.UPDATE":
            server.loop.call_soon(server.lose)
            server.loop.call_soon(lambda: server.connect().info.update(domain="two"))
            return SILENCE
        return None

    server.hook = hook
    with pytest.raises(ForeignBucketError, match="answers for domain 'two'"):
        await update_bucket(server.js, "b", {"description": "d"})
    assert server.verbs().count("STREAM.UPDATE") == 1


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", "ä", 7])
async def test_names_that_cannot_be(server: MemoryServer, name: Any) -> None:
    server.verbs()
    for call in (
        open_bucket(server.js, name),
        create_bucket(server.js, None, {"bucket": name}),
        update_bucket(server.js, None, {"bucket": name, "description": "d"}),
        delete_bucket(server.js, name),
    ):
        with pytest.raises(BadBucketError):
            await call
    assert server.verbs() == []


def test_configurations() -> None:
    config = ObjectStoreConfig("b", description="d")
    assert build_config(config, {}) == config
    assert build_config(config, {"description": "e"}).description == "e", "keywords win"
    assert build_config(None, {"bucket": "b"}) == ObjectStoreConfig("b")
    with pytest.raises(TypeError, match="unknown bucket parameter 'colour'"):
        build_config(config, {"colour": "red"})
    with pytest.raises(BadBucketError, match="at least bucket"):
        build_config(None, {})
    wrong: Any = {"bucket": "b"}
    with pytest.raises(BadBucketError, match="must be an ObjectStoreConfig, not dict"):
        build_config(wrong, {})


async def test_changes(server: MemoryServer) -> None:
    await create_bucket(server.js, None, {"bucket": "b", "description": "d"})
    server.stream().config["unheard_of"] = 7
    await update_bucket(server.js, None, {"bucket": "b", "ttl": timedelta(minutes=1)})
    config = server.stream().config
    assert (config["description"], config["max_age"], config["unheard_of"]) == ("d", 60_000_000_000, 7)
    await update_bucket(server.js, ObjectStoreConfig("b"))
    assert not server.stream().config.get("description")
    with pytest.raises(BucketNotFoundError):
        await update_bucket(server.js, ObjectStoreConfig("nowhere"))
    await create_or_update_bucket(server.js, ObjectStoreConfig("b", description="e"))
    assert server.stream().config["description"] == "e"
    await create_or_update_bucket(server.js, None, {"bucket": "new"})
    assert "OBJ_new" in server.streams


async def test_changes_leave_the_rest_as_it_came(server: MemoryServer) -> None:
    """Also what a bucket's configuration reads, and could write only in part."""
    await create_bucket(server.js, "b")
    current = server.stream().config
    current |= {
        "discard": "old",
        "max_age": 3_600_000_000_001,
        "placement": {"cluster": "c", "preferred": "n1"},
        "sources": [
            {"name": "OBJ_media", "external": {"api": "hub.API", "deliver": "d"}, "opt_start_seq": 5}
        ],
    }
    before = dict(current)
    await update_bucket(server.js, "b", {"description": "d"})
    assert server.stream().config == {**before, "description": "d"}
    sources = (BucketSource("media"),)
    config = ObjectStoreConfig("b", "e", timedelta(hours=1), placement=Placement("c"), sources=sources)
    await create_or_update_bucket(server.js, config)
    assert server.stream().config == {**before, "description": "e", "discard": "new"}
    await update_bucket(server.js, "b", {"sources": ["media", "more"]})
    media, more = server.stream().config["sources"]
    assert media == before["sources"][0]
    assert more["name"] == "OBJ_more"
    with pytest.raises(UnsupportedFeatureError, match="sources"):
        server.hook = lambda verb, body: server.stream().info({}) if verb == "STREAM.UPDATE" else None
        await update_bucket(server.js, "b", {"sources": ["another"]})


async def test_a_sealed_bucket_does_not_change(server: MemoryServer) -> None:
    await create_bucket(server.js, "b")
    server.stream().config["sealed"] = True
    server.verbs()
    for call in (
        update_bucket(server.js, "b", {"description": "d"}),
        update_bucket(server.js, "b"),
        update_bucket(server.js, ObjectStoreConfig("b")),
    ):
        with pytest.raises(BucketSealedError, match="'b' is sealed"):
            await call
    assert set(server.verbs()) == {"STREAM.INFO"}


async def test_enumerated(server: MemoryServer) -> None:
    for name in ("b", "a"):
        await create_bucket(server.js, None, {"bucket": name})
    await server.js.create_stream({"name": "OTHER", "subjects": ["x"]})
    assert await bucket_names(server.js) == ["a", "b"]
    statuses = await bucket_statuses(server.js)
    assert [(status.bucket, status.count) for status in statuses] == [("a", -1), ("b", -1)]


async def test_streams_of_others_are_not_buckets(server: MemoryServer) -> None:
    """A stream is called as its owner likes."""
    await create_bucket(server.js, None, {"bucket": "b"})
    await server.js.create_stream({"name": "OBJ_orders", "subjects": ["orders.>"]})
    mirrors = [f"m{number:02}" for number in range(LOOKS_AT_ONCE + 1)]
    for name in mirrors:
        await server.js.create_stream({"name": f"OBJ_{name}", "mirror": {"name": "OBJ_b"}})
    await server.js.create_stream({"name": "OBJ_copy", "mirror": {"name": "ORDERS"}})
    await server.js.create_stream({"name": "OBJ_not+one", "subjects": ["$O.x.C.>"]})
    assert await bucket_names(server.js) == ["b", *mirrors]
    assert [status.bucket for status in await bucket_statuses(server.js)] == ["b", *mirrors]
    for call in (
        lambda: open_bucket(server.js, "orders"),
        lambda: open_bucket(server.js, "orders", create=True),
        lambda: create_bucket(server.js, None, {"bucket": "orders"}),
        lambda: update_bucket(server.js, None, {"bucket": "orders", "description": "mine"}),
        lambda: create_or_update_bucket(server.js, None, {"bucket": "orders"}),
        lambda: delete_bucket(server.js, "orders"),
    ):
        with pytest.raises(BadBucketError) as caught:
            await call()
    assert "listens on 'orders.>', a bucket has $O.orders.C.> and $O.orders.M.>" in str(caught.value)
    assert (caught.value.field, caught.value.value, caught.value.bucket) == (
        "subjects",
        ["orders.>"],
        "orders",
    )
    assert server.streams["OBJ_orders"].config["subjects"] == ["orders.>"]


@pytest.mark.parametrize("why", ["gone", "no leader", "no right", "no connection"])
async def test_a_mirror_that_does_not_say_what_it_is(server: MemoryServer, why: str) -> None:
    """Its name is all that is known then."""
    await create_bucket(server.js, None, {"bucket": "b"})
    await server.js.create_stream({"name": "OBJ_m", "mirror": {"name": "OBJ_b"}})
    answer = NO_STREAM if why == "gone" else error(503, 10008, "no leader")
    server.hook = lambda verb, body: answer if verb == "STREAM.INFO" else None
    if why == "no right":
        server.refused.add("STREAM.INFO")
    if why == "no connection":
        server.hook = lambda verb, body: [SILENCE, server.lose()][0] if verb == "STREAM.INFO" else None
        with pytest.raises(StaleConnectionError):
            await bucket_names(server.js)
        return
    assert await bucket_names(server.js) == (["b"] if why == "gone" else ["b", "m"])
    if why == "gone":
        with pytest.raises(BucketNotFoundError):
            await delete_bucket(server.js, "m")
    else:
        assert await delete_bucket(server.js, "m")


def test_which_streams_are_buckets() -> None:
    assert bucket_of("OBJ_b") == "b"
    for stream in ("b", "OBJ_", "OBJ_a b", "KV_b", "obj_b"):
        assert bucket_of(stream) is None


async def test_deleted(server: MemoryServer) -> None:
    await create_bucket(server.js, None, {"bucket": "b"})
    assert await delete_bucket(server.js, "b") is True
    assert server.streams == {}
    with pytest.raises(BucketNotFoundError):
        await delete_bucket(server.js, "b")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400, 10058, "stream name already in use"), BucketAlreadyExistsError),
        (error(500, 10047, "insufficient storage resources available"), StoreFullError),
        (error(400, 10005, "no suitable peers for placement, insufficient storage"), StoreFullError),
        (error(400, 10109, "invalid operation on sealed stream"), BucketSealedError),
        (error(500, 10052, "duplicates window can not be larger then max age"), BadBucketError),
    ],
)
async def test_refusals(server: MemoryServer, answer: Any, kind: type[Exception]) -> None:
    server.hook = lambda verb, body: answer if verb == "STREAM.CREATE" else None
    with pytest.raises(kind, match="'b'"):
        await create_bucket(server.js, None, {"bucket": "b"})


async def test_a_place_that_could_not_be_made_is_tried_again(server: MemoryServer) -> None:
    """With the last stream of an account servers remove the folder of all of them."""
    failures = [error(500, module.STORE_FAILED, "could not create storage directory")] * 2
    server.hook = lambda verb, body: failures.pop() if failures and verb == "STREAM.CREATE" else None
    await create_bucket(server.js, None, {"bucket": "b"})
    assert "OBJ_b" in server.streams


@pytest.mark.parametrize("version", ["2.9.10", "2.10.0"])
async def test_what_a_server_does_not_know_is_refused_before(version: str) -> None:
    server = MemoryServer(version)
    server.session.info["jetstream"] = True
    with pytest.raises(UnsupportedFeatureError, match=rf"this server is {version}"):
        await create_bucket(server.js, None, {"bucket": "b", "allow_msg_ttl": True})
    assert server.streams == {}
    await server.client.close()


async def test_what_a_server_drops_is_told(server: MemoryServer) -> None:
    create = server.create

    def older(config: dict[str, Any]) -> Any:
        return create({key: value for key, value in config.items() if key != "allow_msg_ttl"})

    server.create = older  # type: ignore[method-assign]
    with pytest.raises(UnsupportedFeatureError, match="the bucket was created without it"):
        await create_bucket(server.js, None, {"bucket": "b", "allow_msg_ttl": True})
    assert "OBJ_b" in server.streams


async def test_made_by_who_may_not_ask_for_its_domain(server: MemoryServer) -> None:
    """It is there: what needs the domain asks again."""
    server.session.info["domain"] = "hub"
    server.refused.add("STREAM.INFO")
    for _ in range(2):
        store = await create_bucket(server.js, "b")
        with pytest.raises(PermissionsViolationError, match=r"STREAM\.INFO\.OBJ_b"):
            await store.put("a", b"x")
    assert server.stream().messages == {}
    server.refused.clear()

    def hook(verb: str, body: Any) -> Any:
        if verb != "STREAM.INFO":
            return None
        server.refuse(server.connection.mux.subject.decode(), "Subscription")
        return SILENCE

    server.hook = hook
    with pytest.raises(PermissionsViolationError) as caught:
        await create_bucket(server.js, "b")
    assert caught.value.operation == "subscription", "that says nothing of the right to ask"
