"""Results: one document, read back as it was, and everything else refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import natsproto
from objstore.bench.results import KIND, Result, ResultError, parse, read, write_whole
from objstore.errors import IntegrityError
from support.bench_results import result, steady


@pytest.fixture
def found() -> Result:
    figures = steady(2.0, 100.0, lambda source: source.uniform(0.001, 0.002), first_byte=True)
    figures.failed("get", IntegrityError("wrong bytes"))
    figures.behind, figures.checked = 5, 6
    return result(figures, steady(2.0, 50.0, lambda source: 0.003, kind="put"))


def test_a_document_is_read_back_as_it_was(found: Result) -> None:
    document = json.loads(json.dumps(found.document()))
    (again,) = parse(json.dumps(document), "x.json")
    assert again.document() == document
    assert again.work == "get"
    assert again.figures.failures == found.figures.failures


def test_what_a_document_says(found: Result) -> None:
    document: Any = found.document()
    assert (document["kind"], document["version"]) == (KIND, 1)
    assert document["client"]["version"] == natsproto.__version__
    assert {"cpu", "cores", "kernel", "python", "date"} <= set(document["client"])
    assert document["server"]["version"] == "2.15.1"
    get = document["operations"]["get"]
    assert (get["count"], get["bytes"]) == (200, 200_000)
    assert get["per_second"] == pytest.approx(100)
    assert get["bytes_per_second"] == pytest.approx(100_000)
    assert get["latency_ns"]["p50"] == pytest.approx(1.5e6, rel=0.05)
    assert 1e6 <= get["latency_ns"]["least"] <= get["latency_ns"]["most"] <= 2e6
    assert get["first_byte_ns"]["p50"] == pytest.approx(get["latency_ns"]["p50"] / 2, rel=0.1)
    assert sum(count for _, count in get["latency_ns"]["counts"]) == 200
    assert sum(get["slices"]["counts"]) == 200
    assert "first_byte_ns" not in document["operations"]["put"]
    assert document["errors"] == {
        "get: IntegrityError": {"count": 1, "example": "wrong bytes", "exit_code": 7}
    }
    assert (document["behind"], document["checked"]) == (5, 6)


def test_a_file_may_have_several_runs(found: Result) -> None:
    text = json.dumps(found.document(), indent=2)
    assert len(parse(f"{text}\n{text}\n\n{text}", "x")) == 3
    other: Any = found.document()
    other["settings"]["concurrency"] = 99
    with pytest.raises(ResultError, match="x has runs with different settings"):
        parse(text + json.dumps(other), "x")


def test_nothing_was_measured() -> None:
    empty = result(steady(0.0, 1.0, lambda source: 0.0))
    assert parse(json.dumps(empty.document()), "x")[0].figures.ops == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a result"),
        ('{"kind": "objstore bench", "version": 2}', "is not a result"),
        ('{"kind": "objstore bench", "version": 1}', "is damaged: KeyError"),
    ],
)
def test_what_is_no_result(text: str, why: str) -> None:
    with pytest.raises(ResultError, match=rf"x\.json {why}"):
        parse(text, "x.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seconds",), "fast"),
        (("operations",), []),
        (("operations", "get"), 5),
        (("operations", "get", "latency_ns"), {}),
        (("operations", "get", "latency_ns", "counts"), 5),
        (("operations", "get", "latency_ns", "counts"), [[1]]),
        (("operations", "get", "slices", "bytes"), []),
        (("errors",), {"x": None}),
        (("settings",), 5),
        (("settings",), {}),
    ],
)
def test_damaged_results(found: Result, path: tuple[str, ...], value: object) -> None:
    document = json.loads(json.dumps(found.document()))
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ResultError, match="x is damaged"):
        parse(json.dumps(document), "x")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole(str(path), "a\nb")
    assert read(str(path)) == "a\nb"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    with pytest.raises(ResultError, match="cannot be written: No such file"):
        write_whole(str(tmp_path / "no" / "x"), "")
    with pytest.raises(ResultError, match="cannot be read: No such file"):
        read(str(tmp_path / "y"))
    path.write_bytes(b"\xff")
    with pytest.raises(ResultError, match="is not text"):
        read(str(path))
