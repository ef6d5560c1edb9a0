"""Publish small messages as fast as a blocking socket can: the ceiling of ``publish``.

    python -m bench.ceiling.publish URL --subject S --size BYTES --count N

The frames are made before the clock starts; it stops when the server has answered a PING sent after them.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ._common import arguments, connect, main, now, payload, result, since, size, wait_for_pong

BURST = 4096, 1 << 20  # frames, and bytes, in one send


def publish(options: argparse.Namespace) -> dict[str, Any]:
    with connect(options.url) as sock:
        frame = b"PUB %b %d\r\n%b\r\n" % (options.subject.encode(), options.size, payload(options.size))
        frames = max(1, min(BURST[0], BURST[1] // len(frame)))
        whole, rest = divmod(options.count, frames)
        burst, last = frame * frames, frame * rest + b"PING\r\n"
        if options.wait:
            print("ready", flush=True)
            sys.stdin.readline()
        start = now()
        for _ in range(whole):
            sock.sendall(burst)
        sock.sendall(last)
        wait_for_pong(sock)
        clock = since(start)
    return {**result("publish", options.size * options.count, clock, ""), "ops": options.count}


if __name__ == "__main__":
    parser = arguments("bench.ceiling.publish", __doc__)
    parser.add_argument("url")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--size", type=size, default=16)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--wait", action="store_true", help="say 'ready', then wait for a line")
    raise SystemExit(main(publish, parser))
