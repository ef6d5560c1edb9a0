"""Arguments of the commands that measure a server."""

from __future__ import annotations

import pytest

from objstore.cli.options.bench import mix, percent, rate
from objstore.cli.output import CommandError
from objstore.cli.parser import parse

LOADS = ("put", "get", "range", "list", "mixed", "core sub")


@pytest.mark.parametrize("load", LOADS)
def test_every_load(load: str) -> None:
    words = "--size 1KiB-2KiB --duration 5s --count 7 --warmup 0 --rate 10/s --concurrency 4 --processes 2"
    args = parse(["bench", *load.split(), *words.split(), "--csv", "f", "--random-seed", "3"])
    assert args.command == f"bench {load.split()[0]}"
    assert (args.size.least, args.size.most) == (1024, 2048)
    assert (args.duration, args.count, args.warmup.total_seconds(), args.rate) == (5.0, 7, 0.0, 10.0)
    assert (args.concurrency, args.processes, args.csv, args.random_seed) == (4, 2, "f", 3)
    args = parse(["bench", *load.split(), "--msgs", "5", "--clients", "2"])  # as nats bench calls them
    assert (args.count, args.concurrency) == (5, 2)


@pytest.mark.parametrize("load", LOADS[:-1])
def test_loads_on_objects(load: str) -> None:
    words = "--storage memory --replicas 3 --chunk-size 64KiB --objects 9"
    args = parse(["bench", load, *words.split()])
    assert (args.storage, args.replicas, args.chunk_size, args.objects) == ("memory", 3, 65536, 9)


def test_defaults() -> None:
    assert parse(["bench", "put"]).size.text == "1MiB"
    args = parse(["bench", "range", "--range-size", "4KiB"])
    assert (args.size.text, args.range_size) == ("64MiB", 4096)
    args = parse(["bench", "core", "publish", "--batch", "5"])
    assert (args.action, args.size.text, args.batch) == ("publish", "128", 5)
    assert parse(["bench", "mixed"]).mix == (("get", 45), ("info", 30), ("put", 15), ("delete", 10))
    args = parse(["bench", "compare", "a", "b", "--noise", "2.5%"])
    assert (args.before, args.after, args.noise) == ("a", "b", 0.025)


def test_values() -> None:
    assert (rate("0.5"), rate(" 500/s")) == (0.5, 500.0)
    assert mix("get:1, delete:2") == (("get", 1), ("delete", 2))
    assert (percent("0"), percent("10")) == (0.0, 0.1)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("put --size 4KiB:x", "'x' is not a weight"),
        ("put --size big", "'big' is not a valid size"),
        ("put --size 2KiB-1KiB", "the smaller size comes first"),
        ("put --duration 10", "has no unit"),
        ("put --rate 0", "'0' is not a rate"),
        ("put --rate fast", "'fast' is not a rate"),
        ("put --rate inf", "'inf' is not a rate"),
        ("put --count 0", "not a whole number above 0"),
        ("put --batch 5", "unrecognized arguments"),
        ("mixed --mix get", "write KIND:WEIGHT"),
        ("mixed --mix get:1,get:2", "write KIND:WEIGHT"),
        ("mixed --mix look:1", "write KIND:WEIGHT"),
        ("mixed --mix get:0", "not a whole number above 0"),
        ("core", "arguments are required"),
        ("core shout", "invalid choice: 'shout'"),
        ("compare a", "arguments are required"),
        ("compare a b --noise 200%", "is not a percentage"),
        ("compare a b --noise x", "is not a percentage"),
        ("gett", "did you mean get?"),
    ],
)
def test_bad_values_say_what_to_write(words: str, why: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse(["bench", *words.split()])
    assert refused.value.code == 2
    assert why in str(refused.value)
