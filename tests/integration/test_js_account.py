"""The account's info on real servers, with limits of the account and of its tiers."""

from __future__ import annotations

from typing import Any

import pytest

import natsproto
from natsproto.server import LocalServer
from support.nkeys import ACCOUNT, OPERATOR, USER, Key

UNLIMITED = {
    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True,
    "conn": -1, "leaf": -1,
}  # fmt: skip


@pytest.fixture(params=["new", "old"])
def binary(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_server").binary.path


async def test_limits_of_an_account(binary: Any) -> None:
    config = """
    accounts { A {
      jetstream: { max_mem: 1000000, max_file: 2000000, max_streams: 3, max_consumers: 4, max_ack_pending: 5 }
      users: [ { user: u, password: p } ]
    } }
    """
    with LocalServer(binary=binary, config=config) as server:
        async with natsproto.connect(server.url, user="u", password="p") as nc:
            js = nc.jetstream()
            await js.create_stream({"name": "S", "storage": "file", "max_bytes": 1 << 16})
            await js.publish("S", b"x")
            info = await js.account_info()
            limits = info.usage.limits
            assert (limits.max_memory, limits.max_storage) == (1_000_000, 2_000_000)
            assert (limits.max_streams, limits.max_consumers, limits.max_ack_pending) == (3, 4, 5)
            assert (info.usage.streams, info.usage.memory, info.tiers, info.domain) == (1, 0, {}, None)
            assert info.usage.storage > 0
            assert info["streams"] == 1
            assert info.api_total >= 1
            new = "api_lvl" in nc.server_info
            assert info.api_level == nc.server_info.get("api_lvl")
            assert info.usage.reserved_storage == (1 << 16 if new else 0)


async def test_tiers(binary: Any) -> None:
    operator, account, system = Key(OPERATOR, b"o" * 32), Key(ACCOUNT, b"a" * 32), Key(ACCOUNT, b"s" * 32)
    user = Key(USER, b"u" * 32)
    tiers = {
        "R1": {"disk_storage": 1 << 20, "mem_storage": 1 << 19, "streams": 5, "consumer": 6},
        "R3": {"disk_storage": 1 << 21, "mem_storage": 0, "streams": 7, "consumer": 8},
    }
    limited = operator.jwt(account, "account", limits={**UNLIMITED, "tiered_limits": tiers})
    config = (
        f"operator: {operator.jwt(operator, 'operator')}\n"
        f"system_account: {system.public}\n"
        "resolver: MEMORY\n"
        "resolver_preload: {\n"
        f"  {account.public}: {limited}\n"
        f"  {system.public}: {operator.jwt(system, 'account', limits=UNLIMITED)}\n"
        "}\n"
    )
    token = account.jwt(user, "user", subs=-1, data=-1, payload=-1)
    with LocalServer(binary=binary, config=config) as server:
        async with natsproto.connect(server.url, jwt=token, nkey_seed=user.seed) as nc:
            js = nc.jetstream()
            await js.create_stream({"name": "S", "storage": "memory", "num_replicas": 1})
            info = await js.account_info()
            assert info.usage.streams == 1
            assert info.tiers["R1"].streams == 1
            limits = info.tiers["R1"].limits
            assert (limits.max_storage, limits.max_memory) == (1 << 20, 1 << 19)
            assert (limits.max_streams, limits.max_consumers) == (5, 6)
            if "R3" in info.tiers:  # older servers leave out a tier that is not used
                assert info.tiers["R3"].limits.max_storage == 1 << 21
