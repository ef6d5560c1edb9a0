"""One measured client, driven over standard input and output."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import Any

from . import works
from .base import MODULES, Peer


async def serve(client: str, url: str, requests: Any, answers: Any) -> None:
    """Answer requests until standard input ends."""
    module = importlib.import_module(f"bench.peers.{MODULES[client]}")
    peer: Peer = module.Client()
    await peer.open(url)
    loop = asyncio.get_running_loop()
    hello = {
        "version": peer.version(),
        "python": sys.version.split()[0],
        "loop": type(loop).__module__,
    }
    print(json.dumps(hello), file=answers, flush=True)
    while line := await loop.run_in_executor(None, requests.readline):
        request = json.loads(line)
        work = getattr(works, request.pop("work"))
        try:
            answer = {"ok": await work(peer, **request)}
        except NotImplementedError as exc:
            answer = {"missing": str(exc) or "not in this client"}
        except Exception as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), file=answers, flush=True)
    await peer.close()


def main() -> None:
    client, url = sys.argv[1:3]
    # Clients may print: their output must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if client.endswith("+uvloop"):
        import uvloop

        client = client.removesuffix("+uvloop")
        uvloop.run(serve(client, url, sys.stdin, answers))
    else:
        asyncio.run(serve(client, url, sys.stdin, answers))


if __name__ == "__main__":
    main()
