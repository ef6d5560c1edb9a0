"""The command ``python -m bench``."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from . import charts, documents, machine, results, suites, tables
from .contestants import LeftOut
from .errors import BenchError
from .machine import ROOT
from .rows import Row, Settings, measure
from .targets import Targets

UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
OTHERS = {
    "capabilities": "ranges, names, iteration, verification",
    "basics": "memory of files, leftovers, import time",
    "tls": "what TLS costs",
    "micro": "single components, with pytest-benchmark (takes pytest's options)",
}
EPILOG = """\
A run prints a table: median, half the spread, cost, how many times as fast ours is, and what was left out and
why. --json FILE keeps everything. Only ratios of one run count; absolute rates drift. See bench/README.md.
"""


def size(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([kmg]ib|b?)", text.lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid size: write 1024, 128KiB, 1MiB or 1GiB")
    return int(found[1]) * UNITS[found[2]]


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def tree(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "bench" / "peers").is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is not a directory of this project: git worktree add makes one"
        )
    return path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def suite(name: str, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about, epilog=EPILOG)
        where = command.add_mutually_exclusive_group()
        where.add_argument("--local", action="store_true", help="private servers on this machine (default)")
        where.add_argument("--url", help="a running server; buckets bench-* are created and removed")
        where.add_argument("--container", action="store_true", help="servers of docker/compose.yaml")
        command.add_argument("--server-binary", help="nats-server for --local (default: the one found)")
        command.add_argument("--runs", type=positive, help="turns of each contestant")
        command.add_argument(
            "--clients", help="only these, separated by commas (natsproto, nats-py, ceiling …)"
        )
        command.add_argument(
            "--before",
            type=tree,
            metavar="DIR",
            help="another revision of this project, as one more contestant",
        )
        command.add_argument("--natsio-python", help="a Python >= 3.13 that has natsio")
        command.add_argument("--only", help="only rows whose key begins with these, separated by commas")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
        command.add_argument("--charts", type=Path, metavar="DIR", help="draw them there (SVG)")
        command.add_argument("--quick", action="store_true", help="small sizes: only shows that it works")
        return command

    suite("reach", "the table of target ratios; exit code 1 when one is missed")
    e2e = suite("e2e", "any combination of operation, size, storage, chunk, concurrency and replicas")
    e2e.add_argument("--work", nargs="+", choices=suites.WORKS, default=["put", "get"])
    e2e.add_argument("--size", nargs="+", type=size, default=[1024**2])
    e2e.add_argument("--storage", nargs="+", choices=("file", "memory"), default=["file"])
    e2e.add_argument("--chunk", nargs="+", type=size, default=[128 * 1024], help="of put")
    e2e.add_argument("--concurrency", nargs="+", type=positive, default=[1])
    e2e.add_argument("--replicas", nargs="+", type=int, choices=(1, 3), default=[1])
    e2e.add_argument("--count", type=positive, default=1000, help="objects of list and names")
    suite("factors", "one factor varied at a time: size, storage, chunk, concurrency, replicas")
    suite("growth", "cost against object size and object count, ours alone")
    suite("scale", "total rates of several connections, several processes, a cluster")
    command = commands.add_parser("compare", help="two results of the same suite, row by row")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    command = commands.add_parser("chart", help="draw results again")
    command.add_argument("result", type=Path, nargs="+")
    command.add_argument("--to", type=Path, default=ROOT / "bench" / "results", metavar="DIR")
    commands.add_parser("docs", help="update the tables of README.md and docs/ from bench/results")
    command = commands.add_parser("table", help="results as a Markdown table")
    command.add_argument("result", type=Path)
    command.add_argument("--clients", help="only these columns, separated by commas")
    command = commands.add_parser(
        "capabilities", help="ranges, names, iteration, verification", add_help=False
    )
    command = commands.add_parser("basics", help="memory of files, leftovers, import time", add_help=False)
    command = commands.add_parser("tls", help="what TLS costs", add_help=False)
    command = commands.add_parser("micro", help="single components, with pytest-benchmark", add_help=False)
    return parser


def run_suite(args: argparse.Namespace) -> int:
    """Measure, print, keep, draw."""
    _refuse_uncommitted(args)
    if args.command == "scale":
        from .scale import measure as measure_row
        from .scale import rows as scale_rows

        rows: list[Row] = scale_rows()
    else:
        measure_row = measure
        rows = _rows(args)
    if args.only:
        wanted = tuple(args.only.split(","))
        rows = [row for row in rows if row.key.startswith(wanted)]
        if not rows:
            raise BenchError(f"no row's key begins with {args.only!r}")
    clients = None if args.clients is None else tuple(args.clients.split(","))
    if clients is not None:
        rows = [row for row in rows if any(c.client in clients for c in row.contestants)]
        if not rows:
            raise BenchError(f"no row has a client of {args.clients!r}")
    if args.before is not None:
        rows = [suites.against(row, args.before) for row in rows]
    if args.quick:
        rows = [suites.tiny(row) for row in rows]
    kind = "url" if args.url else "container" if args.container else "local"
    settings = Settings(
        targets=Targets(kind, args.url or "", args.server_binary),
        runs=args.runs or (1 if args.quick else 5 if args.command == "reach" else 3),
        natsio_python=args.natsio_python,
        clients=clients,
        quick=args.quick,
    )
    found: list[dict[str, Any]] = []
    for row in rows:
        found.append(measure_row(row, settings))
        print("\n".join(tables.lines(found[-1])), flush=True)
        if args.json:  # after each row: a run that is interrupted keeps what it has
            document = results.document(args.command, found, runs=settings.runs, quick=args.quick)
            results.write(args.json, document)
    if args.charts:
        document = results.document(args.command, found, runs=settings.runs, quick=args.quick)
        for path in charts.draw(document, args.charts):
            print(path)
    missed = tables.missed(found)
    if args.quick:
        print("(--quick: the figures mean nothing; the bytes were right)")
        return 0
    for line in missed:
        print(f"LOW  {line}")
    return 1 if missed else 0


def _refuse_uncommitted(args: argparse.Namespace) -> None:
    """Results that will be committed must come from a committed program."""
    if args.quick or args.json is None or not args.json.resolve().is_relative_to(documents.RESULTS):
        return
    revision = machine.revision()
    if revision.endswith("+") or revision == "unknown":
        raise BenchError(
            f"{args.json} is for results of a committed revision, but this is {revision}: commit first, "
            "or write elsewhere"
        )


def _rows(args: argparse.Namespace) -> list[Row]:
    if args.command == "reach":
        return suites.reach()
    if args.command == "factors":
        return suites.factors()
    if args.command == "growth":
        return suites.growth(quick=args.quick)
    rows = suites.works(
        args.work,
        sizes=args.size,
        storages=args.storage,
        chunks=args.chunk,
        concurrencies=args.concurrency,
        nodes=args.replicas,
        count=args.count,
    )
    return list({row.key: row for row in rows}.values())


def other(args: argparse.Namespace, rest: list[str]) -> int:
    """Run a command that measures nothing, or has its own way of measuring."""
    if args.command == "compare":
        print("\n".join(results.compare(results.read(args.before), results.read(args.after))))
    elif args.command == "chart":
        for path in args.result:
            for chart in charts.draw(results.read(path), args.to):
                print(chart)
    elif args.command == "docs":
        for page in documents.update():
            print(page)
    elif args.command == "table":
        columns = None if args.clients is None else args.clients.split(",")
        print(tables.markdown(results.read(args.result)["rows"], columns), end="")
    elif args.command == "micro":
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            str(ROOT / "bench" / "micro"),
            "--benchmark-enable",
            *rest,
        ]
        return subprocess.run(command, cwd=ROOT).returncode
    else:
        import importlib

        module = importlib.import_module(f".{args.command}", __package__)
        return int(module.main(rest))
    return 0


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.command not in OTHERS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, interrupted)  # servers, buckets and containers are cleaned up then, too
    try:
        code = run_suite(args) if hasattr(args, "quick") else other(args, rest)
        sys.stdout.flush()
        return code
    except (BenchError, LeftOut) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has stopped; the interpreter flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
