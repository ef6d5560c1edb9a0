"""Every way of docs/connecting.md, with the configuration that stands beside it, on both servers."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import socket
import ssl
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest

import natsproto
from natsproto.errors import NatsError, ServerProcessError
from natsproto.server import LocalServer
from support.certs import make_certs
from support.nkeys import ACCOUNT, OPERATOR, USER, Key, creds_text

PAGE = (Path(__file__).parent.parent.parent / "docs" / "connecting.md").read_text()
UNLIMITED = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True}


class Way(NamedTuple):
    title: str
    config: str
    source: str


WAYS = [
    Way(*found)
    for found in re.findall(
        r"^## (.*?)$.*?^```conf\n(.*?)^```$.*?^```py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
]


class Place(NamedTuple):
    """What the page takes for given: files in the working directory, and values."""

    values: dict[str, str]
    names: dict[str, Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MY_TOKEN", raising=False)
    certs = make_certs(tmp_path / "certs", hosts=("localhost",))
    for name, path in (
        ("ca.pem", certs.ca_file),
        ("server.pem", certs.cert_file),
        ("server.key", certs.key_file),
        ("client.pem", certs.client_cert_file),
        ("client.key", certs.client_key_file),
    ):
        shutil.copyfile(path, tmp_path / name)
    operator, account, system = Key(OPERATOR, b"o" * 32), Key(ACCOUNT, b"a" * 32), Key(ACCOUNT, b"s" * 32)
    user = Key(USER, b"u" * 32)
    jwt = account.jwt(user, "user", subs=-1, data=-1, payload=-1)
    (tmp_path / "user.seed").write_text(user.seed + "\n")
    (tmp_path / "user.creds").write_text(creds_text(jwt, user.seed))
    monkeypatch.setenv("MY_CREDS", creds_text(jwt, user.seed))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = {**UNLIMITED, "conn": -1, "leaf": -1}
    values = {
        "USER_KEY": user.public,
        "OPERATOR_JWT": operator.jwt(operator, "operator"),
        "ACCOUNT_KEY": account.public,
        "ACCOUNT_JWT": operator.jwt(account, "account", limits=limits),
        "SYSTEM_KEY": system.public,
        "SYSTEM_JWT": operator.jwt(system, "account", limits=limits),
        "WEB_PORT": str(port),
    }
    names = {
        "natsproto": natsproto,
        "os": os,
        "ssl": ssl,
        "public_key": user.public,
        "sign": lambda nonce: user.sign(nonce.encode()),
        "user_jwt": jwt,
        "web_port": port,
    }
    return Place(values, names)


def test_there_are_ways() -> None:
    assert len(WAYS) == len(re.findall(r"^## ", PAGE, re.MULTILINE)) == 21


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.title)
async def test_it_connects(server: LocalServer, place: Place, way: Way) -> None:
    config = re.sub(r"\b[A-Z]+_[A-Z]+\b", lambda found: place.values[found[0]], way.config)
    config = re.sub(r'"(\w+\.(?:pem|key))"', lambda found: f'"{Path.cwd() / found[1]}"', config)
    code = compile(way.source, "connecting.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    mine = LocalServer(binary=server.binary.path, jetstream=False, config=config)
    if "handshake_first" in way.config and server.binary.version.startswith("2.9"):
        with pytest.raises(ServerProcessError, match="handshake_first"):
            mine.start()
        return
    with mine:
        plain = f"nats://localhost:{mine.port}"
        scope = {**place.names, "url": plain}
        result = eval(code, scope)
        if inspect.isawaitable(result):
            await result
        async with scope["client"] as client:
            sub = await client.subscribe("a")
            await client.publish("a", b"hello")
            assert (await sub.next_msg(timeout=5)).data == b"hello"
        if "websocket" not in way.config:  # nobody gets in without
            with pytest.raises(NatsError):
                await natsproto.connect(plain, tls=False)
        elif "verify" in way.config:
            with pytest.raises(NatsError):
                await natsproto.connect(
                    f"wss://localhost:{scope['web_port']}", tls=ssl.create_default_context(cafile="ca.pem")
                )
