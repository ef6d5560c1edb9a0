"""Credentials against real servers, and that no secret shows anywhere (S7, S16)."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import natsproto
from natsproto.errors import AuthorizationError, ConnectionClosedError, NatsError
from natsproto.server import LocalServer
from natsproto.testing import ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from support.calls import Calls
from support.nkeys import ACCOUNT, OPERATOR, USER, Key, creds_text

ServerMaker = Callable[..., LocalServer]


@pytest.fixture
def make(server: LocalServer) -> Iterator[ServerMaker]:
    """Makes servers of either version, without JetStream."""
    made: list[LocalServer] = []

    def start(**options: Any) -> LocalServer:
        made.append(LocalServer(binary=server.binary.path, jetstream=False, **options))
        return made[-1].start()

    yield start
    for one in made:
        one.stop()


async def works(server: LocalServer, url: str | None = None, **options: Any) -> None:
    async with natsproto.connect(url or server.url, **options) as nc:
        await nc.flush()


async def refused(server: LocalServer, url: str | None = None, **options: Any) -> AuthorizationError:
    start = time.monotonic()
    with pytest.raises(AuthorizationError) as info:
        await natsproto.connect(url or server.url, **options)
    assert time.monotonic() - start < 5
    return info.value


async def test_user_and_password(make: ServerMaker) -> None:
    server = make(user="us er", password="p@:/w")
    await works(server, user="us er", password="p@:/w")
    await works(server, server.url.replace("//", "//us%20er:p%40%3A%2Fw@"))
    await refused(server)
    await refused(server, user="us er", password="CANARY")
    await refused(server, token="p@:/w")


async def test_token(make: ServerMaker) -> None:
    server = make(token="s3cret")
    await works(server, token="s3cret")
    await works(server, token=lambda: "s3cret")
    await works(server, server.url.replace("//", "//s3cret@"))
    await refused(server)
    await refused(server, token="other")


async def test_nkey(make: ServerMaker) -> None:
    key, other = Key(USER, bytes(range(32))), Key(USER, bytes(32))
    server = make(config=f"authorization {{ users: [ {{nkey: {key.public}}} ] }}")
    await works(server, nkey_seed=key.seed)
    await works(server, nkey_seed=key.seed.encode())
    await works(server, nkey=key.public, signature_cb=lambda nonce: key.sign(nonce.encode()))
    await refused(server, nkey=key.public, signature_cb=lambda nonce: bytes(64))
    await refused(server)
    await refused(server, nkey_seed=other.seed)


def jwt_config(operator: Key, account: Key, system: Key) -> str:
    return (
        f"operator: {operator.jwt(operator, 'operator')}\n"
        f"system_account: {system.public}\n"
        "resolver: MEMORY\n"
        "resolver_preload: {\n"
        f"  {account.public}: {operator.jwt(account, 'account', limits=UNLIMITED)}\n"
        f"  {system.public}: {operator.jwt(system, 'account', limits=UNLIMITED)}\n"
        "}\n"
    )


UNLIMITED = {
    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True,
    "conn": -1, "leaf": -1,
}  # fmt: skip


async def test_credentials_file_and_jwt(make: ServerMaker, tmp_path: Path) -> None:
    operator, account, system = Key(OPERATOR, b"o" * 32), Key(ACCOUNT, b"a" * 32), Key(ACCOUNT, b"s" * 32)
    user, stranger = Key(USER, b"u" * 32), Key(USER, b"x" * 32)
    server = make(config=jwt_config(operator, account, system))
    token = account.jwt(user, "user", subs=-1, data=-1, payload=-1)
    path = tmp_path / "user.creds"
    path.write_text(creds_text(token, user.seed))
    await works(server, creds=path)
    await works(server, creds=str(path))
    await works(server, jwt=token, nkey_seed=user.seed)
    await works(server, jwt=lambda: token, nkey_seed=user.seed)
    await works(server, jwt=token, signature_cb=lambda nonce: user.sign(nonce.encode()))
    await works(server, jwt=token.encode(), nkey_seed=user.seed.encode)
    for content in (path.read_text(), path.read_bytes(), path.read_bytes):
        await works(server, creds_content=content)
    await refused(server, creds_content=creds_text(token, stranger.seed))
    await refused(server, jwt=token, nkey_seed=stranger.seed)
    await refused(server)
    path.write_text(creds_text(account.jwt(user, "user", expires=int(time.time()) - 5), user.seed))
    await refused(server, creds=path)


async def test_user_expires_while_connected(make: ServerMaker, tmp_path: Path) -> None:
    operator, account, system = Key(OPERATOR, b"o" * 32), Key(ACCOUNT, b"a" * 32), Key(ACCOUNT, b"s" * 32)
    user = Key(USER, b"u" * 32)
    server = make(config=jwt_config(operator, account, system))
    path = tmp_path / "user.creds"
    closed = Calls()

    async def connect(life: int) -> natsproto.Client:
        expires = int(time.time()) + life
        token = account.jwt(user, "user", expires=expires, subs=-1, data=-1, payload=-1)
        path.write_text(creds_text(token, user.seed))
        return await natsproto.connect(
            server.url, creds=path, closed_cb=closed, error_cb=Calls(), reconnect_wait=0.01
        )

    try:
        nc = await connect(2)
    except AuthorizationError:  # on a busy machine it has expired by now
        nc = await connect(12)
    await closed.until(1)
    assert isinstance(nc.last_error, ConnectionClosedError)
    assert isinstance(nc.last_error.__cause__, AuthorizationError)
    await nc.close()


async def test_password_revoked_at_a_restart(make: ServerMaker) -> None:
    """A11 on real servers."""
    server = make(user="u", password="old")
    closed = Calls()
    nc = await natsproto.connect(
        server.url, user="u", password="old", closed_cb=closed, error_cb=Calls(), reconnect_wait=0.02
    )
    server.kill()
    server._credentials = ("u", "new", None)
    server.start()  # on the same port, which was not free meanwhile
    await closed.until(1)
    with pytest.raises(ConnectionClosedError, match="credentials"):
        await nc.publish("a")
    await nc.close()


CANARY = "CANARY0123456789"


def texts(root: object) -> str:
    """Every repr and str reachable from our own objects."""

    def ours(kind: type) -> bool:
        module = str(kind.__module__)  # compiled types may have anything there
        return module.startswith("natsproto") and "testing" not in module and "wire" not in module

    things = [thing for thing in gc.get_objects() if ours(type(thing)) and not isinstance(thing, type)]
    return "\n".join(repr(thing) + str(thing) for thing in things)


@pytest.mark.parametrize("scheme", ["nats", "ws"])
async def test_s7_no_secret_shows(
    scheme: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Failing and working connects, reconnects and refusals, all at DEBUG; nothing has the canary."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    key = Key(USER, bytes(range(32)))
    errors: list[BaseException] = []

    async def refusing(conn: ScriptedConnection) -> None:
        await conn.info(auth_required=True, nonce="CANARYNONCE")
        await conn.expect()
        await conn.err("Authorization Violation")

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake(nonce="CANARYNONCE")
        await conn.expect("go")

    if scheme == "ws":
        config = f'websocket {{ port: -1, no_tls: true }}\nauthorization {{ user: u, password: "{CANARY}" }}'
        async with LocalServer(jetstream=False, config=config) as real:
            url = f"ws://u:{CANARY}@127.0.0.1:{websocket_port(real)}"
            async with natsproto.connect(url) as nc:
                await nc.flush()
                shown = texts(nc)
    else:
        async with ScriptedServer(script, script, refusing) as server:
            for options in (
                {"servers": server.url.replace("//", f"//{CANARY}:{CANARY}@")},
                {"servers": server.url, "token": lambda: CANARY},
            ):
                closed = Calls()
                nc = await natsproto.connect(
                    **options, nkey_seed=key.seed, closed_cb=closed, reconnect_wait=0.01
                )
                shown = texts(nc)
                await nc.publish("go")
                if len(server.connections) > 1:
                    await closed.until(1)
                    errors.append(nc.last_error or RuntimeError())
                await nc.close()
            with pytest.raises(NatsError) as info:
                await natsproto.connect(server.url.replace("//", f"//{CANARY}@"), nkey_seed=key.seed)
            errors.append(info.value)
            with pytest.raises(NatsError) as info:
                await natsproto.connect(f"nats://u:{CANARY}@127.0.0.1:1", nkey_seed=key.seed)
            errors.append(info.value)
    out, err = capfd.readouterr()
    shown += "\n".join(record.getMessage() + str(record.exc_info) for record in caplog.records) + out + err
    for error in errors:
        # Source lines are this file's own; the message, the chain and the notes are ours.
        shown += "".join(traceback.format_exception_only(error)) + repr(error) + str(error.__cause__)
    for secret in (CANARY, key.seed, "CANARYNONCE"):
        assert secret not in shown


def websocket_port(server: LocalServer) -> int:
    import re

    found = re.search(r"Listening for websocket clients on ws://[^:]+:(\d+)", server.log(200))
    assert found is not None, server.log(50)
    return int(found[1])
