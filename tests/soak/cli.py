"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from natsproto.errors import NatsError, ServerProcessError
from natsproto.server import ServerBinary, find_server

from .nemesis import EVERY, TOLERATED
from .run import GROUPS, Plan, Soak

DESCRIPTION = """Client processes do everything to one bucket and a small one, a nemesis breaks servers,
connections and clients, and a checker looks for an order of events that explains every answer.
Exit code: 0 no violations, 1 violations (each printed with what happened to the name), 2 wrong usage."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.soak", description=DESCRIPTION)
    made.add_argument("--minutes", type=float, required=True, metavar="N", help="of work, 0.1 or more")
    made.add_argument(
        "--seed", type=int, metavar="S", help="of workload and faults; default: a random one, printed"
    )
    made.add_argument("--r3", action="store_true", help="three servers and replicas instead of one")
    made.add_argument(
        "--faults",
        metavar="LIST",
        default="all",
        help=f"separated by commas: all, none, {', '.join(GROUPS)}, or single ones: {', '.join(EVERY)}; "
        "-NAME leaves one out",
    )
    made.add_argument(
        "--server",
        metavar="PATH",
        help="nats-server executable, or a version of one that is installed; default as natsproto.server",
    )
    made.add_argument("--report", metavar="FILE", help="write everything there as JSON")
    made.add_argument("--processes", type=int, default=3, metavar="N", help="client processes (3)")
    made.add_argument("--names", type=int, default=30, metavar="N", help="object names per bucket (30)")
    made.add_argument(
        "--epoch", type=float, default=100.0, metavar="S", help="seconds between standstills (100)"
    )
    made.add_argument("--keep", metavar="DIR", help="keep histories and logs there, also without violations")
    made.add_argument("--quiet", action="store_true", help="print violations and the report only")
    return made


def chosen_faults(text: str) -> list[str]:
    """The faults a list names.

    Raises:
        ValueError: an unknown name.
    """
    chosen: set[str] = set()
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words and words[0].startswith("-"):
        words.insert(0, "all")
    for word in words:
        plain = word.removeprefix("-")
        if plain == "all":
            meant = set(EVERY)
        elif plain == "none":
            meant = set()
        elif plain == "tolerated":
            meant = set(TOLERATED)
        elif plain in GROUPS:
            meant = set(GROUPS[plain])
        elif plain in EVERY:
            meant = {plain}
        else:
            raise ValueError(f"unknown fault {plain!r}; known are all, none, {', '.join((*GROUPS, *EVERY))}")
        chosen = chosen - meant if word.startswith("-") else chosen | meant
    return [kind for kind in EVERY if kind in chosen]


def server_binary(wanted: str | None) -> ServerBinary:
    """The executable of that path or version; the default one when nothing is wanted.

    Raises:
        NatsError: there is none.
    """
    if wanted is None or not re.fullmatch(r"\d+(\.\d+){1,2}", wanted):
        return find_server(wanted)
    cache = Path.home() / ".cache"
    paths = [shutil.which("nats-server"), "/usr/sbin/nats-server", "/usr/bin/nats-server"]
    paths += [str(path) for path in sorted(cache.glob("natsproto-interop/nats-server-*"))]
    known = [find_server()]
    known += [find_server(path) for path in paths if path and os.access(path, os.X_OK)]
    for binary in known:
        if f"{binary.version}.".startswith(f"{wanted}."):
            return binary
    versions = ", ".join(sorted({binary.version for binary in known}))
    raise ServerProcessError(f"no nats-server {wanted} is installed; there are {versions}")


def main(words: list[str] | None = None) -> int:
    made = parser()
    args = made.parse_args(words)
    try:
        faults = chosen_faults(args.faults)
    except ValueError as exc:
        made.error(str(exc))
    if not args.minutes >= 0.1 or args.minutes > 10_000:
        made.error("--minutes is 0.1 or more")
    if args.processes < 1 or args.processes > 20 or args.names < 5 or args.names > 1000 or args.epoch < 5:
        made.error("--processes is 1 to 20, --names 5 to 1000, --epoch 5 or more")
    try:
        binary = server_binary(args.server)
    except NatsError as exc:
        made.error(str(exc))
    if args.report and not os.path.isdir(os.path.dirname(os.path.abspath(args.report))):
        made.error(f"--report: no such folder: {args.report}")
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    _raise_limit()
    logging.basicConfig(level=logging.ERROR)  # that connections break is what this is about
    folder = os.path.abspath(args.keep) if args.keep else tempfile.mkdtemp(prefix="natsproto-soak-")
    os.makedirs(folder, exist_ok=True)
    plan = Plan(
        args.minutes,
        seed,
        3 if args.r3 else 1,
        faults,
        binary.path,
        processes=args.processes,
        names=args.names,
        epoch=args.epoch,
        folder=folder,
        keep=args.keep or "",
    )

    def say(text: str) -> None:
        if not args.quiet or "VIOLATION" in text:
            print(text, flush=True)

    print(f"seed {seed}", flush=True)
    try:
        report = asyncio.run(Soak(plan, say).run())
    except KeyboardInterrupt:
        print("soak: interrupted", file=sys.stderr)
        return 130
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n" + report.as_text(), flush=True)
    if args.report:
        with open(args.report, "w") as file:
            file.write(report.as_json() + "\n")
    return 1 if report.violations else 0


def _raise_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
