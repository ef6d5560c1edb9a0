"""URLs, the order of attempts, discovery, backoff."""

from __future__ import annotations

import random
import re
import traceback
from typing import Any
from urllib.parse import quote

import pytest

from natsproto.aio import server_pool
from natsproto.aio.server_pool import MAX_POOL, Peer, Server, ServerPool, parse_url, parse_urls
from natsproto.errors import ConfigError
from support.nkeys import USER, Key


@pytest.mark.parametrize(
    ("text", "url", "user", "password", "token"),
    [
        ("nats://h:1", "nats://h:1", None, None, None),
        ("h", "nats://h:4222", None, None, None),
        ("h:1", "nats://h:1", None, None, None),
        ("tls://h", "tls://h:4222", None, None, None),
        ("tls://u:p@h", "tls://h:4222", "u", "p", None),
        ("ws://h", "ws://h:80", None, None, None),
        ("wss://h/path", "wss://h:443/path", None, None, None),
        ("ws://h/größe/a%20b;c=1,2/", "ws://h:80/gr%C3%B6%C3%9Fe/a%20b;c=1,2/", None, None, None),
        ("NATS://H:1", "nats://h:1", None, None, None),
        (" nats://h:1 ", "nats://h:1", None, None, None),
        ("nats://u:p%40%3A%2F@h:1", "nats://h:1", "u", "p@:/", None),
        ("nats://secret@h:1", "nats://h:1", None, None, "secret"),
        ("u:p@h", "nats://h:4222", "u", "p", None),
        ("nats://u:@h:1", "nats://h:1", "u", "", None),
        ("nats://[::1]:1", "nats://[::1]:1", None, None, None),
        ("nats://[::1]", "nats://[::1]:4222", None, None, None),
        ("nats://h:1/", "nats://h:1", None, None, None),
    ],
)
def test_parse_url(text: str, url: str, user: str | None, password: str | None, token: str | None) -> None:
    server = parse_url(text)
    assert (server.url, server.user, server.password, server.token) == (url, user, password, token)
    assert repr(server) == f"<Server {url}>"


@pytest.mark.parametrize(
    "text",
    ["", "  ", "http://h", "nats://", "nats://:1", "nats://h:0", "nats://h:x", "nats://h:99999", "nats://h:-1",
     "nats://a b", "nats://a\r\nPING", "nats://[::1", "nats://h\x00", None, 1],
)  # fmt: skip
def test_bad_urls(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(text)


@pytest.mark.parametrize("urls", [None, 5, [], [b"nats://h"]])
def test_what_is_no_list_of_urls(urls: Any) -> None:
    with pytest.raises(ConfigError):
        parse_urls(urls)


@pytest.mark.parametrize(
    "text",
    ["nats://u:CANARY/x@h", "nats://CANARY:pa/CANARY@h:1", "http://u:CANARY@h", "CANARY://x@h"],
)
def test_a_bad_url_is_never_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as info:
        parse_url(text)
    assert "canary" not in str(info.value).lower()
    assert "CANARY" not in "".join(traceback.format_exception(info.value, chain=True)).replace(text, "")
    assert info.value.__cause__ is None
    assert info.value.__context__ is None, "what is hidden only is shown by error trackers"


@pytest.mark.parametrize("mark", ["/", "?", "#", "[", "]"])
@pytest.mark.parametrize("form", ["nats://u:CANARY{}x@h", "u:pa{}CANARY@h:1", "tls://u:1{}CANARY@h"])
def test_what_to_escape_is_said(form: str, mark: str) -> None:
    with pytest.raises(ConfigError) as info:
        parse_url(form.format(mark))
    assert f"{mark} as {quote(mark, safe='')}" in str(info.value)
    assert "canary" not in str(info.value).lower()
    escaped = form.format(quote(mark, safe=""))
    assert parse_url(escaped).password == re.split("[:@]", form.format(mark).partition("u:")[2])[0]


def test_a_host_without_credentials_needs_no_escapes() -> None:
    with pytest.raises(ConfigError, match=r"invalid host or port \(write nats://host:port\)$"):
        parse_url("nats://h:x")


def test_a_seed_is_no_host() -> None:
    """It would be asked of a name server."""
    seed = Key(USER, b"k" * 32).seed
    for text in (seed, f"nats://{seed}", f"tls://{seed.lower()}:4222"):
        with pytest.raises(ConfigError, match="a seed as its host") as info:
            parse_url(text)
        assert seed.lower() not in str(info.value).lower()
    assert parse_url("nats://sandbox-2a3b4c5d6e7f.svc.cluster.local").host.startswith("sandbox")
    assert parse_url(f"nats://{seed}@h").token == seed


@pytest.mark.parametrize(
    "text",
    ["nats://h/x", "nats://h:1/x", "nats://h?x", "nats://h:1#x", "ws://h/p?x", "wss://h#x", "h/x",
     "nats://token/CANARY@h", "nats://u:CANARY/x@h", "nats://u:CANARY?x@h", "tls://u:CANARY#x@h:1",
     "ws://u:1234/CANARY@h", "wss://CANARY/x@h:1", "ws://u/CANARY@h/p"],
)  # fmt: skip
def test_what_follows_the_port_is_refused(text: str) -> None:
    """Of an unescaped password only the beginning would count, and as a host, even."""
    with pytest.raises(ConfigError) as info:
        parse_url(text)
    assert "CANARY" not in str(info.value)


@pytest.mark.parametrize("text", ["nats://ada:2024,CANARY@h:1", "nats://h:1,CANARY@h:2"])
def test_a_comma_in_a_password_splits_nothing(text: str) -> None:
    """Half of it would be looked up as a host, the other be sent as a token."""
    with pytest.raises(ConfigError, match="%2C") as info:
        ServerPool(text)
    assert "CANARY" not in str(info.value)
    assert ServerPool("nats://ada:2024%2Cx@h:1").servers[0].password == "2024,x"
    assert len(ServerPool("h:1,token@h:2").servers) == 2


def test_encryption_sticks() -> None:
    pool = pool_of("a:1", "z:1")
    a, z = pool.servers
    pool.connected(a)
    pool.discover(["b:1"], via=a)
    (b,) = pool.servers[2:]
    assert [a.secured, b.secured] == [False, False]
    pool.connected(a, secure=True)
    (c,) = pool.discover(["b:1", "c:1"], via=a, secure=True)
    pool.connected(a)  # what a connection without it would say
    pool.discover(["b:1", "c:1"], via=a)
    assert [server.secured for server in (a, b, c, z)] == [True, True, True, False]


def test_encryption_sticks_to_servers_that_were_given() -> None:
    """The user named b as well; through TLS it was announced, so nobody gets its credentials in clear."""
    pool = pool_of("a:1", "b:1", "z:1")
    a, b, z = pool.servers
    pool.connected(a)
    pool.discover(["b:1"], via=a)
    assert [server.secured for server in (a, b, z)] == [False, False, False]
    pool.connected(a, secure=True)
    assert pool.discover(["b:1"], via=a, secure=True) == []
    assert [server.secured for server in (a, b, z)] == [True, True, False]
    assert (b.scheme, b.tls_name, b.discovered) == ("nats", None, False), "it is still the user's"
    pool.discover([], via=a)
    pool.discover(["b:1"], via=a)
    assert b.secured
    assert pool.servers == [a, b, z]


def test_only_so_many_addresses_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be parsed, and the event loop stand still, for seconds."""
    pool = pool_of("a:1")
    parsed: list[str] = []

    def count(text: str) -> server_pool.Server:
        parsed.append(text)
        return parse_url(text)

    monkeypatch.setattr(server_pool, "parse_url", count)
    assert pool.discover(["h:port"] * 90_000, via=pool.servers[0]) == []
    assert len(parsed) == server_pool.MAX_ANNOUNCED


def test_list_of_servers() -> None:
    pool = ServerPool("nats://a:1,nats://b:2,a:1", randomize=False)
    assert [server.url for server in pool.servers] == ["nats://a:1", "nats://b:2"]
    assert len(ServerPool(["nats://a", "nats://b"])) == 2
    with pytest.raises(ConfigError):
        ServerPool([])
    with pytest.raises(ConfigError, match="WebSocket"):
        ServerPool(["nats://a", "ws://b"])


def test_shuffled_once_by_the_given_source() -> None:
    urls = [f"nats://h{n}" for n in range(20)]
    order = [s.host for s in ServerPool(urls, rng=random.Random(1)).servers]
    assert order == [s.host for s in ServerPool(urls, rng=random.Random(1)).servers]
    assert order != [s.host for s in ServerPool(urls, rng=random.Random(2)).servers]
    assert sorted(order) == sorted(url[7:] for url in urls)


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(
        ConfigError, match="unknown scheme 'http' in a server URL: use one of nats, tls, ws, wss"
    ):
        parse_url("http://h")


def pool_of(*hosts: str) -> ServerPool:
    return ServerPool([f"nats://{host}" for host in hosts], randomize=False)


def test_a_round_begins_after_the_current_server() -> None:
    pool = pool_of("a", "b", "c")
    assert [s.host for s in pool.round()] == ["a", "b", "c"]
    pool.connected(pool.servers[1])
    assert [s.host for s in pool.round()] == ["c", "a", "b"]
    assert pool.others()
    assert not pool_of("a").others() or pool_of("a").current is None


def test_failures_in_a_row_drop_a_server() -> None:
    pool = pool_of("a", "b")
    a, b = pool.servers
    for _ in range(3):
        pool.failed(a, limit=3)
    assert pool.servers == [a, b]
    pool.connected(a)
    for _ in range(3):
        pool.failed(a, limit=3)
    pool.failed(a, limit=3)
    assert pool.servers == [b]
    for _ in range(1000):
        pool.failed(b, limit=-1)
    assert pool.servers == [b]
    pool.failed(b, limit=0)
    assert len(pool) == 0


def test_two_refusals_of_the_credentials_drop_a_server() -> None:
    pool = pool_of("a")
    (a,) = pool.servers
    pool.failed(a, auth=True)
    pool.connected(a)
    pool.failed(a, auth=True)
    assert pool.servers == [a]
    pool.failed(a, auth=True)
    assert pool.servers == []


def test_discovered_servers() -> None:
    pool = ServerPool("nats://u:p@a:1", randomize=False)
    (a,) = pool.servers
    pool.connected(a)
    new = pool.discover(["10.0.0.2:4222", "a:1", "b.example:4222", "[::1]:5"], via=a)
    assert [server.url for server in new] == [
        "nats://10.0.0.2:4222",
        "nats://b.example:4222",
        "nats://[::1]:5",
    ]
    assert all(server.discovered and (server.user, server.password) == ("u", "p") for server in new)
    # IP addresses are verified against the name that was asked for, names against themselves.
    assert [server.tls_name for server in new] == ["a", None, "a"]
    assert pool.discover(["10.0.0.2:4222"], via=a) == []
    assert [server.url for server in pool.servers] == ["nats://a:1", "nats://10.0.0.2:4222"]
    pool.connected(pool.servers[1])
    pool.discover(["c:1"], via=a)
    assert [server.host for server in pool.servers] == ["a", "10.0.0.2", "c"], "the current one stays"


def test_an_info_in_clear_cannot_name_the_certificate() -> None:
    pool = pool_of("a.example")
    (a,) = pool.servers
    (evil,) = pool.discover(["evil.example:1"], via=a, secure=True, trusted=False)
    assert (evil.scheme, evil.tls_name) == ("tls", "a.example")
    pool.discover(["evil.example:1"], via=a, secure=True)
    assert evil.tls_name is None, "announced again over TLS"
    (next_one,) = pool.discover(["evil.example:1", "d:1"], via=pool.servers[1], secure=True, trusted=False)
    assert next_one.tls_name == "evil.example"


def test_encryption_sticks_to_servers_that_were_forgotten() -> None:
    """A server without TLS withdraws the address, and announces it again."""
    pool = pool_of("a", "c")
    a, c = pool.servers
    pool.discover(["b:1"], via=c, secure=True)
    pool.discover([], via=a, secure=False)
    assert pool.servers == [a, c]
    (b,) = pool.discover(["b:1"], via=a, secure=False)
    assert (b.scheme, b.secured) == ("tls", True)
    pool.connected(c, secure=True)
    assert pool.discover(["d:1"], via=a, secure=False)[0].scheme == "nats"


def test_an_info_in_clear_cannot_put_the_honest_server_last() -> None:
    """Hundreds of silent addresses would take minutes, after every outage."""
    pool = pool_of("a.example", "b.example")
    a, b = pool.servers
    pool.connected(a, secure=True)
    evil = pool.discover(["x:1", "y:1"], via=a, secure=True, trusted=False)
    assert pool.round() == [b, a, *evil]
    pool.discover(["x:1", "y:1"], via=a, secure=True)
    assert pool.round() == [b, *evil, a], "announced again over TLS"
    pool.discover(["x:1", "z:1"], via=a, secure=True, trusted=False)
    last = pool.servers[-1]
    assert pool.round()[-1] is last
    pool.connected(last, secure=True)
    assert pool.round()[-1] is last, "proven by its certificate, and current"
    assert not last.doubtful


def test_the_scheme_never_gets_weaker() -> None:
    for url, secure, scheme in [
        ("tls://a", True, "tls"),
        ("nats://a", True, "tls"),
        ("nats://a", False, "nats"),
        ("wss://a", True, "wss"),
        ("ws://a", False, "ws"),
    ]:
        pool = ServerPool(url)
        (new,) = pool.discover(["b:1"], via=pool.servers[0], secure=secure)
        assert new.scheme == scheme


def test_hostile_announcements() -> None:
    pool = pool_of("a")
    via = pool.servers[0]
    bad = [
        "",
        "user:pw@h:1",
        "h:x",
        "h:0",
        "http://h",
        "a b:1",
        "h\r\nPING:1",
        "h/../x:1",
        "\x00",
        7,
        None,
        ["h"],
    ]
    assert pool.discover(bad, via=via) == []
    assert pool.servers == [via]
    pool.discover([f"h{n}:1" for n in range(100_000)], via=via)
    assert len(pool) <= MAX_POOL + 1
    pool.discover([f"g{n}:1" for n in range(100_000)], via=via)
    assert len(pool) <= MAX_POOL + 1


@pytest.mark.parametrize(
    ("announced", "peer"),
    [
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("10.0.0.1:1", ("::ffff:10.0.0.1", 1, 0, 0)),
        ("[::ffff:10.0.0.1]:1", ("10.0.0.1", 1)),
        ("[0:0::1]:1", ("::1", 1, 0, 0)),
        ("[FE80::1%eth0]:1", ("fe80::1", 1, 0, 2)),
    ],
)
def test_encryption_sticks_to_addresses_in_any_spelling(announced: str, peer: Peer) -> None:
    pool = pool_of("a:1", "b:1", "b:2")
    a, b, z = pool.servers
    pool.connected(a, secure=True)
    pool.discover([announced], via=a, secure=True)
    assert not b.secured
    pool.reached(b, peer)
    pool.reached(z, (peer[0], 2))
    assert (b.secured, z.secured) == (True, False)
    pool.reached(z, None)
    pool.replace(parse_urls([announced.replace("[F", "[f")]))
    assert pool.servers[0].secured


def test_encryption_sticks_to_where_a_server_was_reached() -> None:
    pool = pool_of("a:1", "b:1", "c:1", "d.:1")
    a, b, c, d = pool.servers
    pool.connected(a, secure=True, peer=("10.0.0.1", 1))
    pool.reached(b, ("10.0.0.1", 1))
    assert b.secured
    pool.reached(b, ("10.0.0.2", 1))  # it has a second address
    pool.reached(c, ("10.0.0.2", 1))
    assert c.secured
    pool.connected(a, secure=True)
    pool.discover(["d:1"], via=a, secure=True)
    assert d.secured
    other = pool_of("e:1")
    other.share(pool)
    other.reached(other.servers[0], ("10.0.0.2", 1))
    assert other.servers[0].secured


@pytest.mark.parametrize("char", ["\x1b", "\x7f", "\x9b", "\u200b", "\u202e", "\u2028", "\ue000"])
def test_what_a_terminal_would_act_on_is_no_host(char: str) -> None:
    pool = pool_of("a")
    for host in (f"h{char}x:1", f"[::1%{char}]:1", f"{char}:1"):
        assert pool.discover([host], via=pool.servers[0]) == []
        for scheme in ("nats", "tls", "ws", "wss"):
            with pytest.raises(ConfigError) as info:
                parse_url(f"{scheme}://{host}")
            assert char not in info.value.args[0]
    assert repr(parse_url("ws://u:\u202e@h/\u202e")).isprintable()


def test_long_addresses_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing a thousand of a thousand characters takes 0.1 s, and INFO may come again and again."""
    pool = pool_of("a")
    parsed: list[str] = []
    monkeypatch.setattr(server_pool, "parse_url", lambda text: parsed.append(text) or parse_url(text))
    name = "h" * 253
    pool.discover([f"{name}h:1" * 2, f"{name}:1"], via=pool.servers[0])
    assert parsed == [f"nats://{name}:1"]
    assert pool.servers[1].host == name


def test_address_and_url_hold_no_credentials() -> None:
    server = Server("nats", "h", 1, user="u", password="CANARY", token="CANARY")
    assert "CANARY" not in repr(server) + server.url + str(server.address)


def test_another_list() -> None:
    """One that stays keeps its failures and its place in the order; what was announced is forgotten."""
    pool = pool_of("a", "b")
    a, b = pool.servers
    pool.connected(a)
    pool.discover(["d:1"], via=a)
    pool.failed(b)
    pool.replace(parse_urls("nats://c,nats://b,nats://a"))
    c = pool.servers[0]
    assert [server.host for server in pool.servers] == ["c", "b", "a"]
    assert pool.servers[1:] == [b, a]
    assert (b.failures, pool.round()) == (1, [c, b, a])
    pool.replace(parse_urls(["nats://u:p@b", "nats://a:4222", "nats://a"]))
    assert pool.servers[1] is a
    assert (pool.servers[0].user, pool.servers[0].failures) == ("u", 0), "other credentials, a new beginning"
    pool.replace(parse_urls("nats://x"))
    assert [server.host for server in pool.round()] == ["x"]
    assert pool.others()
    with pytest.raises(ConfigError, match="WebSocket"):
        pool.replace(parse_urls("ws://x"))
    assert [server.host for server in pool.servers] == ["x"]


def test_encryption_sticks_to_another_list() -> None:
    """To what was used with TLS, or announced by that; not to what the user had only named with tls://."""
    pool = ServerPool("tls://a,tls://b,tls://c", randomize=False)
    a = pool.servers[0]
    pool.connected(a, secure=True)
    pool.discover(["d:4222"], via=a, secure=True)
    pool.replace(parse_urls("nats://a,nats://b,nats://d,nats://e"))
    assert {server.host: server.secured for server in pool.servers} == {
        "a": True,
        "b": False,
        "d": True,
        "e": False,
    }
    pool.replace(parse_urls("nats://e"))
    pool.replace(parse_urls("nats://a,nats://d"))
    assert [server.secured for server in pool.servers] == [True, True]
    (new,) = pool.discover(["b:4222"], via=pool.servers[0], secure=True)
    assert (new.scheme, new.secured) == ("tls", True)


def test_one_that_was_announced_is_named_now() -> None:
    """Its certificate must have the name that the user wrote, and it is not forgotten with the next INFO."""
    pool = ServerPool("tls://a.example", randomize=False)
    a = pool.servers[0]
    (b,) = pool.discover(["10.0.0.2:4222"], via=a, secure=True, trusted=False)
    assert (b.tls_name, b.doubtful) == ("a.example", True)
    pool.connected(b, secure=True)
    pool.replace(parse_urls("tls://10.0.0.2"))
    (named,) = pool.servers
    assert (named.tls_name, named.doubtful, named.discovered, named.secured) == (None, False, False, True)
    assert pool.current is named
    pool.discover(["c:4222"], via=b, secure=True)
    assert pool.servers[0] is named


def test_another_list_is_shuffled() -> None:
    urls = [f"nats://h{n}" for n in range(20)]
    pool = ServerPool("nats://a", rng=random.Random(1))
    pool.replace(parse_urls(urls))
    order = [server.url for server in pool.servers]
    assert order != [server.url for server in parse_urls(urls)]
    assert sorted(order) == sorted(server.url for server in parse_urls(urls))
