"""The fuzzers' corpora are replayed, without a fuzzer, on every Python."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import __main__ as command
from fuzz.targets import MAX_LENGTH, TARGETS, mutate_number

FILES = sorted(path for path in command.CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_a_corpus_and_all_of_it_is_small() -> None:
    assert tuple(TARGETS) == command.NAMES
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert sum(path.stat().st_size for path in FILES) < 500_000


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """Each input, and what the mutator of numbers makes of it."""
    for path in FILES:
        if path.parent.name != name:
            continue
        data = path.read_bytes()[: 64 * 1024]
        for number in range(4):
            try:
                TARGETS[name](data)
            except Exception as exc:
                exc.add_note(f"{path.name}, mutated {number} times: {data[:500]!r}")
                raise
            data = mutate_number(data, number) or data
            if len(data) > MAX_LENGTH:
                break


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_and_any_bytes(name: str) -> None:
    chance = random.Random(1)
    for size in (0, 1, 2, 10, 100, 1000):
        TARGETS[name](chance.randbytes(size))


@pytest.mark.parametrize("name", ["info", "meta", "pub_ack", "token"])
def test_nesting_of_every_depth(name: str) -> None:
    """Also of just the depth that can be read and not be written again, a few calls further down."""
    document = (
        b'{"version":1,"bucket":"b","name":"n","nuid":"ABCDEFGHIJKLMNOPQRSTUV","chunk_size":131072,"x":%b}'
    )
    limit = sys.getrecursionlimit()
    for depth in (*range(limit - 200, limit + 10), 100_000):
        data = document % (b"[" * depth + b"]" * depth)
        TARGETS[name](b"n\n" + data if name == "meta" else data)


def test_without_the_fuzzer_it_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "client", "--seconds", "1"],
        cwd=command.ROOT,
        env={"PYTHONPATH": f"{tmp_path}:{command.ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "'.[dev]'" in done.stderr
