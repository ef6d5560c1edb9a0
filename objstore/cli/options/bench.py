"""Arguments of the commands that measure a server."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import TYPE_CHECKING

from .. import arguments

if TYPE_CHECKING:
    from objstore.bench.sizes import Sizes


def sizes(text: str) -> Sizes:
    """Parse a size, a range ``1KiB-1MiB``, or a distribution ``4KiB:80,1MiB:20``."""
    from objstore.bench.sizes import parse

    try:
        return parse(text, arguments.size)
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from None


def rate(text: str) -> float:
    """Parse operations per second: ``500`` or ``0.5``, also as ``500/s``."""
    try:
        found = float(text.strip().removesuffix("/s"))
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a rate: write operations per second, as 500 or 0.5")
    return found


def mix(text: str) -> tuple[tuple[str, int], ...]:
    """Parse ``get:45,info:30,put:15,delete:10``."""
    from objstore.bench.settings import MIXED_KINDS

    found: dict[str, int] = {}
    for word in text.split(","):
        kind, colon, weight = word.strip().partition(":")
        if kind not in MIXED_KINDS or kind in found or not colon:
            raise ArgumentTypeError(f"{word!r}: write KIND:WEIGHT for each of {', '.join(MIXED_KINDS)}")
        found[kind] = arguments.count(weight)
    return tuple(found.items())


def percent(text: str) -> float:
    """Parse ``5%`` or ``5`` to 0.05."""
    try:
        found = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise ArgumentTypeError(f"{text!r} is not a percentage: write 5%")
    return found


def _load(parser: ArgumentParser, size: str, what: str) -> None:
    """Add what every measurement has."""
    parser.add_argument(
        "--size",
        metavar="SIZE",
        type=sizes,
        default=sizes(size),
        help=f"of {what}: 1MiB, a range 1KiB-1MiB, or a distribution 4KiB:80,1MiB:20 (default: {size})",
    )
    parser.add_argument("--duration", metavar="TIME", type=arguments.timeout, help="how long (10s)")
    parser.add_argument(
        "--count",
        "--msgs",
        metavar="N",
        type=arguments.count,
        help="how many; instead of --duration, or first",
    )
    parser.add_argument(
        "--warmup", metavar="TIME", type=arguments.duration, help="before the measurement (1s); 0 is none"
    )
    parser.add_argument(
        "--rate",
        metavar="N",
        type=rate,
        help="begin N each second, whatever happens to those before; latencies count from when each was due",
    )
    parser.add_argument(
        "--concurrency",
        "--clients",
        metavar="N",
        type=arguments.count,
        help="at a time, in all processes together (one in each; with --rate 32 in each)",
    )
    parser.add_argument(
        "--processes", metavar="N", type=arguments.count, default=1, help="client processes (1)"
    )
    parser.add_argument(
        "--random-seed", metavar="N", type=arguments.count, default=1, help="of payloads and choices"
    )
    parser.add_argument(
        "--csv", metavar="FILE", help="write the figures there, with the columns of nats bench"
    )


def _bucket(parser: ArgumentParser) -> None:
    """Add what measurements of objects have."""
    parser.add_argument("--storage", choices=("file", "memory"), default="file")
    parser.add_argument("--replicas", metavar="N", type=arguments.count, default=1)
    parser.add_argument("--chunk-size", metavar="SIZE", type=arguments.size, help="bytes of a chunk (128KiB)")


def _objects(parser: ArgumentParser, about: str) -> None:
    parser.add_argument("--objects", metavar="N", type=arguments.count, help=about)


STORED = "how many objects are stored before (up to 1000, or 256 MiB)"


def bench_put(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench put``."""
    _load(parser, "1MiB", "the objects")
    _objects(parser, "replace N names in turn, instead of storing under new ones")
    _bucket(parser)


def bench_get(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench get``."""
    _load(parser, "1MiB", "the objects")
    _objects(parser, STORED)
    _bucket(parser)


def bench_range(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench range``."""
    _load(parser, "64MiB", "the objects")
    parser.add_argument(
        "--range-size", metavar="SIZE", type=arguments.size, default=1 << 20, help="bytes of a range (1MiB)"
    )
    _objects(parser, STORED)
    _bucket(parser)


def bench_list(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench list``."""
    _load(parser, "128", "the objects")
    _objects(parser, "how many objects are in the bucket (1000)")
    _bucket(parser)


def bench_mixed(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench mixed``."""
    _load(parser, "1MiB", "the objects")
    parser.add_argument(
        "--mix",
        metavar="KIND:WEIGHT,…",
        type=mix,
        default=mix("get:45,info:30,put:15,delete:10"),
        help="how often each kind of operation comes (get:45,info:30,put:15,delete:10)",
    )
    _objects(parser, STORED)
    _bucket(parser)


def bench_core(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench core``."""
    parser.add_argument(
        "action",
        metavar="publish|subscribe|request",
        choices=("publish", "pub", "subscribe", "sub", "request", "req"),
        help="publish to nobody; publish and receive; ask and be answered",
    )
    _load(parser, "128", "the messages")
    parser.add_argument(
        "--batch",
        metavar="N",
        type=arguments.count,
        help="messages published together, as one operation (1000 or 1 MiB; with --rate 1)",
    )


def bench_compare(parser: ArgumentParser) -> None:
    """Add the arguments of ``bench compare``."""
    parser.add_argument("before", metavar="BEFORE", help="result of --json; - is standard input")
    parser.add_argument("after", metavar="AFTER", help="result of --json")
    parser.add_argument(
        "--noise", metavar="PERCENT", type=percent, default=0.05, help="smaller changes never count (5%%)"
    )
