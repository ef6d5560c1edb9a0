"""What the pages say of the benchmarks is what the results say; results are of committed revisions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from bench import cli, documents, machine, results, rows, suites
from bench.errors import BenchError


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert len(documents.BLOCK.findall(text)) == text.count("<!-- table:") + text.count("<!-- missed:") + (
        text.count("<!-- about:")
    )
    assert documents.render(text, documents.read_all(clean=False)) == text


@pytest.mark.parametrize("name", [path.stem for path in sorted(documents.RESULTS.glob("*.json"))])
def test_results_are_of_a_committed_revision(name: str) -> None:
    assert results.unusable(results.read(documents.RESULTS / f"{name}.json")) is None


def result(**changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(results.read(documents.RESULTS / "reach.json"))
    found["machine"]["revision"] = "0123abc"
    for key, value in changes.items():
        if key in found:
            found[key] = value
        else:
            found["machine"][key] = value
    return found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"revision": "0123abc+"}, "uncommitted changes"),
        ({"revision": "unknown"}, "unknown revision"),
        ({"quick": True}, "quick run"),
        ({}, None),
    ],
)
def test_what_is_not_to_be_published(
    changes: dict[str, Any], why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = result(**changes)
    assert (why is None) == (results.unusable(found) is None)
    results.write(tmp_path / "reach.json", found)
    monkeypatch.setattr(documents, "RESULTS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("<!-- table: reach -->\n\n| old |\n\nbehind\n")
    if why is None:
        assert documents.update((page,)) == [page]
        assert "| put 1 MiB |" in page.read_text()
        assert page.read_text().endswith("|\n\nbehind\n")
        assert documents.update((page,)) == []
    else:
        with pytest.raises(BenchError, match=why):
            documents.update((page,))
        assert "| old |" in page.read_text()
    line = results.compare(found, found)[0]
    assert ("NOT TO BE PUBLISHED" in line) == (why is not None)


def test_lists() -> None:
    found = {"reach": result()}
    text = documents.render("<!-- missed: reach -->\n\n* old\n\n<!-- about: reach -->\n\n", found)
    assert "* put 100 MiB from bytes, natsrpy: " in text
    assert "* revision 0123abc, " in text
    assert "* old" not in text
    found["reach"]["rows"] = [row for row in found["reach"]["rows"] if row["key"] == "parser"]
    assert documents.render("<!-- missed: reach -->\n\n", found) == "<!-- missed: reach -->\n\n* none\n"


def test_nothing_is_measured_for_the_results_with_uncommitted_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "revision", lambda: "0123abc+")
    target = documents.RESULTS / "parser-only.json"
    assert cli.main(["reach", "--only", "parser", "--json", str(target)]) == 1
    assert "commit first" in capsys.readouterr().err
    assert not target.exists()


def figures(seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "ops": 1, "cpu": 0.1, "bytes": 100, "rss": 0, "peak": 0}


def test_rounds_are_compared_in_pairs() -> None:
    """A slow minute of the machine slows both of a round, so it does not widen the interval."""
    samples = {
        rows.OURS: [figures(seconds) for seconds in (1.0, 9.0, 2.0)],
        rows.BEFORE: [figures(seconds) for seconds in (1.1, 9.9, 2.2)],
    }
    assert rows.paired({"samples": samples}, rows.BEFORE) == pytest.approx((1.1, 1.1, 1.1))
    samples[rows.BEFORE].pop()
    assert rows.paired({"samples": samples}, rows.BEFORE) is None
    assert rows.paired({"samples": {}}, rows.BEFORE) is None


def test_another_revision_takes_part_next_to_ours(tmp_path: Path) -> None:
    (tmp_path / "bench" / "peers").mkdir(parents=True)
    args = cli.build_parser().parse_args(["reach", "--before", str(tmp_path)])
    for row in suites.reach():
        ours, before, *others = suites.against(row, args.before).contestants
        assert (ours, others) == (row.contestants[0], row.contestants[1:])
        assert (before.label, before.tree, before.client) == (rows.BEFORE, tmp_path, ours.client)


def test_a_directory_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["reach", "--before", str(tmp_path)])
    assert "is not a directory of this project" in capsys.readouterr().err
