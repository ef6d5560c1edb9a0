"""SHA-256 alone, in pieces of a chunk: the minimal cost of verification.

python -m bench.ceiling.sha256 --size BYTES [--chunk N]
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

from ._common import arguments, main, now, payload, result, since


def sha256(options: argparse.Namespace) -> dict[str, Any]:
    view = memoryview(payload(options.size))
    start = now()
    hasher = hashlib.sha256()
    for at in range(0, options.size, options.chunk):
        hasher.update(view[at : at + options.chunk])
    return result("sha256", options.size, since(start), hasher.hexdigest())


if __name__ == "__main__":
    raise SystemExit(main(sha256, arguments("bench.ceiling.sha256", __doc__, "--size", "--chunk")))
