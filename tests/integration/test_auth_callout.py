"""Auth callout (ADR-26, nats-server 2.10): a service, built on this client, decides who may connect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import natsproto
from natsproto.errors import AuthorizationError
from natsproto.server import LocalServer
from support.nkeys import ACCOUNT, Key, claims_of

ISSUER = Key(ACCOUNT, b"i" * 32)
CONFIG = f"""
accounts {{
  AUTH: {{ users: [ {{ user: auth, password: auth }} ] }}
  APP: {{}}
  SYS: {{}}
}}
system_account: SYS
authorization {{ timeout: 10
  auth_callout {{ issuer: {ISSUER.public}, account: AUTH, auth_users: [ auth ] }} }}
"""


@asynccontextmanager
async def deciding(server: LocalServer, asked: list[dict[str, Any]]) -> AsyncIterator[None]:
    """A service that lets the user "ada" in, and notes what each client has sent."""
    async with (
        natsproto.connect(server.url, user="auth", password="auth") as nc,
        await nc.subscribe("$SYS.REQ.USER.AUTH") as questions,
    ):
        await nc.flush()  # a client that comes before this has been heard would be refused

        async def decide() -> None:
            async for msg in questions:
                claims = claims_of(msg.data.decode())
                question = claims["nats"]
                asked.append(question["connect_opts"])
                user = question["user_nkey"]
                if question["connect_opts"].get("user") == "ada":
                    rights = ISSUER.jwt(user, "user", audience="APP", subs=-1, data=-1, payload=-1)
                    answer = {"jwt": rights}
                else:
                    answer = {"error": "only ada"}
                signed = ISSUER.jwt(
                    user, "authorization_response", audience=question["server_id"]["id"], **answer
                )
                await msg.respond(signed.encode())

        async with asyncio.TaskGroup() as tasks:
            service = tasks.create_task(decide())
            yield
            service.cancel()


async def test_a_user_without_a_password() -> None:
    asked: list[dict[str, Any]] = []
    async with LocalServer(jetstream=False, config=CONFIG) as server, deciding(server, asked):
        async with natsproto.connect(server.url, user="ada") as nc:
            sub = await nc.subscribe("a")
            await nc.publish("a", b"hello")
            assert (await sub.next_msg(timeout=5)).data == b"hello"
        assert asked[0]["user"] == "ada"
        assert "pass" not in asked[0]
        with pytest.raises(AuthorizationError):
            await natsproto.connect(server.url, user="bob")
        async with natsproto.connect(server.url, user="ada", password="known") as nc:
            await nc.flush()
        assert asked[-1]["pass"] == "known"


async def test_a_user_that_has_no_password(server: LocalServer) -> None:
    """A server may know such a user, too."""
    config = "authorization { users: [ { user: ada } ] }"
    async with LocalServer(binary=server.binary.path, jetstream=False, config=config) as own:
        async with natsproto.connect(own.url, user="ada") as nc:
            await nc.flush()
        for other in ({"user": "bob"}, {"user": "ada", "password": "x"}, {"token": "ada"}, {}):
            with pytest.raises(AuthorizationError):
                await natsproto.connect(own.url, **other)
