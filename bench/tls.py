"""What TLS costs: put and get of 100 MiB through TLS and in clear, in turns.

    python -m bench tls [--runs N] [--quick] [--profile]

Starts two private nats-servers (R1, file storage, 128 KiB chunks), one of them with a certificate made for
it, and a client process for each. The two take turns in going first. Every byte is compared while the clock
is stopped. ``--profile`` shows in which functions a put and a get through TLS spend their time (self time;
the profiler itself slows small functions down).
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import ssl
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from .basics import child_process, line
from .errors import BenchError
from .machine import need_disk
from .peers.works import payload

MIB = 1024 * 1024
WANTED = 0.5
"""Ratio of the rate through TLS to the rate in clear, at least."""


async def transfers(url: str, ca_file: str, size: int, profile: bool) -> dict[str, Any]:
    """Seconds of one put and one get, after one of each to warm up."""
    import natsproto

    data = payload(size)
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    async with natsproto.connect(url, tls=context) as client:
        store = await client.jetstream().create_object_store(bucket="bench")
        found: dict[str, Any] = {}
        for _ in range(2):
            for work in ("put", "get"):
                profiler = cProfile.Profile() if profile else None
                start = time.perf_counter()
                if profiler is not None:
                    profiler.enable()
                got = await (store.put("one", data) if work == "put" else store.get("one"))
                if profiler is not None:
                    profiler.disable()
                    found[f"{work} profile"] = _most(profiler)
                found[work] = time.perf_counter() - start
                assert work == "put" or got == data, "wrong bytes"
        await client.jetstream().delete_object_store("bench")
    return found


def _most(profiler: cProfile.Profile) -> list[tuple[str, float]]:
    """The ten functions with the most self time, and their shares of the total."""
    stats = pstats.Stats(profiler)
    entries = [(own, where) for where, (_, _, own, _, _) in stats.stats.items()]  # type: ignore[attr-defined]
    total = sum(own for own, _ in entries) or 1.0
    entries.sort(reverse=True)
    return [
        (f"{Path(file).name}:{name}" if number else name, own / total)
        for own, (file, number, name) in entries[:10]
    ]


def _child(url: str, ca_file: str, size: int, profile: bool) -> dict[str, Any]:
    return child_process("tls", url, ca_file, str(size), "profile" if profile else "")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench tls", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="rounds (7)")
    parser.add_argument("--quick", action="store_true", help="small sizes; shows that it works")
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        url, ca_file, size, profile = options.child
        print(json.dumps(asyncio.run(transfers(url, ca_file, int(size), bool(profile)))))
        return 0
    try:
        from tests.support.certs import make_certs
    except ImportError as exc:
        raise BenchError(f"certificates need the extra: pip install -e '.[test]' ({exc})") from exc
    from natsproto.server import LocalServer

    size, runs = (2 * MIB, 1) if options.quick else (100 * MIB, max(1, options.runs))
    need_disk(8 * size)
    ratios: dict[str, list[float]] = {"put": [], "get": []}
    with tempfile.TemporaryDirectory() as directory:
        certs = make_certs(Path(directory))
        tls = {"cert_file": certs.cert_file, "key_file": certs.key_file}
        with LocalServer() as plain, LocalServer(tls=tls) as secure:
            print(f"nats-server {plain.version}, R1, file storage, 128 KiB chunks, {ssl.OPENSSL_VERSION}")
            kinds = [("clear", plain.url, ""), ("tls", secure.url, certs.ca_file)]
            for run in range(runs):
                found = {
                    name: _child(url, ca, size, False) for name, url, ca in kinds[:: 1 if run % 2 else -1]
                }
                for work, values in ratios.items():
                    values.append(found["clear"][work] / found["tls"][work])
                    rates = {name: f"{size / 1e6 / took[work]:.0f} MB/s" for name, took in found.items()}
                    print(f"  {work}: {rates['clear']} in clear, {rates['tls']} through TLS")
            if options.profile:
                found = {"tls": _child(secure.url, certs.ca_file, size, True)}
                for work in ratios:
                    print(f"  {work} through TLS, self time:")
                    for name, share in found["tls"][f"{work} profile"]:
                        print(f"    {share:6.1%}  {name}")
    good = True
    for work, values in ratios.items():
        median = statistics.median(values)
        text = f"{median:.2f} ({min(values):.2f} to {max(values):.2f})"
        good &= line(f"{work} {size // MIB} MiB, TLS / clear", text, f">= {WANTED}", median >= WANTED)
    if options.quick:
        print("(small sizes: the ratios mean nothing)")
    return 0 if good or options.quick else 1
