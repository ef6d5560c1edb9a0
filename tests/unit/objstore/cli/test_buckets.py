"""The commands on buckets, on a server in this process."""

from __future__ import annotations

import json
from typing import Any

from support.memory_server import MemoryServer


async def test_bucket_add(server: MemoryServer, command: Any) -> None:
    _, err = await command("bucket", "add", "new", "--ttl", "1h", "--max-bytes", "1MiB", "--metadata", "k=v")
    assert "'new'" in err
    config = server.stream("new").config
    assert (config["max_age"], config["max_bytes"]) == (3_600_000_000_000, 1 << 20)
    assert json.loads((await command("bucket", "add", "two", "--json"))[0])["bucket"] == "two"
