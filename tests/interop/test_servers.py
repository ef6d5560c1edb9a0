"""The columns of the matrix are what they say."""

from __future__ import annotations

import natsproto
from interop.gaps import ACK_V2
from interop.servers import SERVERS
from natsproto.server import LocalServer

EVERY_SERVER = True


async def test_version_and_flag(nc: natsproto.Client, server: LocalServer, column: str) -> None:
    """Acknowledgement subjects have 9 tokens, and 12 with ``js_ack_fc_v2``."""
    assert nc.server_info["version"] == server.version == SERVERS[column][0]
    js = nc.jetstream()
    inbox = nc.new_inbox()
    name = f"S{column}".replace(".", "_")
    await js.create_stream({"name": name, "subjects": [f"{name}.x"]})
    try:
        await js.publish(f"{name}.x", b"1")
        async with await nc.subscribe(inbox) as messages:
            await js.create_consumer(name, {"deliver_subject": inbox, "ack_policy": "none"})
            reply = (await messages.next_msg(timeout=10)).reply
    finally:
        await js.delete_stream(name)
    assert reply is not None
    tokens = len(reply.split("."))
    assert tokens >= 11 if column == ACK_V2 else tokens == 9
