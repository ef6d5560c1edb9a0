"""Results: made once per run, written as one JSON document, read again to compare."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from . import machine
from .latency import Histogram, bounds, bucket_of
from .record import Failure, Figures, Series, Slice
from .settings import Settings

VERSION = 1
KIND = "objstore bench"

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


class ResultError(Exception):
    """A file is not a result, or cannot be read or written; the text is one line."""


@dataclass(frozen=True)
class Result:
    """The result of one run.

    Attributes:
        settings: as :meth:`.Settings.document` returns them.
        server: version, name and address.
        client: the library's version and the machine.
        figures: of all processes together.
        processes: of each of them.
    """

    settings: Mapping[str, object]
    server: Mapping[str, object]
    client: Mapping[str, object]
    figures: Figures
    processes: list[Figures]

    @classmethod
    def made(cls, settings: Settings, found: list[Figures], server: Mapping[str, object]) -> Result:
        """Return the result of a run from what each process measured."""
        from natsproto._version import __version__

        total = Figures()
        for figures in found:
            total.add(figures)
        client = {"version": __version__, **machine.describe()}
        return cls(settings.document(), server, client, total, found)

    @property
    def work(self) -> str:
        """What was measured."""
        return str(self.settings["work"])

    def document(self) -> dict[str, object]:
        """Return it as JSON: rates, latencies in nanoseconds with their histograms, slices of time."""
        figures = self.figures
        return {
            "kind": KIND,
            "version": VERSION,
            "settings": dict(self.settings),
            "server": dict(self.server),
            "client": dict(self.client),
            "seconds": figures.seconds,
            "cpu_seconds": figures.cpu,
            "behind": figures.behind,
            "checked": figures.checked,
            "operations": {kind: _series(series, figures.seconds) for kind, series in figures.series.items()},
            "errors": {
                key: {"count": failure.count, "example": failure.example, "exit_code": failure.code}
                for key, failure in figures.failures.items()
            },
        }


def _series(series: Series, seconds: float) -> dict[str, object]:
    found: dict[str, object] = {
        "count": series.ops,
        "bytes": series.bytes,
        "per_second": series.ops / seconds if seconds else 0.0,
        "bytes_per_second": series.bytes / seconds if seconds else 0.0,
        "latency_ns": latencies(series.latency),
    }
    if series.first_byte.total:
        found["first_byte_ns"] = latencies(series.first_byte)
    found["slices"] = {
        "seconds": series.width,
        "counts": [each.ops for each in series.slices],
        "bytes": [each.bytes for each in series.slices],
        "latency_ns": [
            [[bounds(bucket)[0], each.counts[bucket]] for bucket in sorted(each.counts)]
            for each in series.slices
        ],
    }
    return found


def latencies(histogram: Histogram) -> dict[str, object]:
    """Return quantiles, mean, and the whole histogram."""
    quantiles = {name: round(histogram.quantile(share)) for name, share in QUANTILES}
    return {**quantiles, "mean": round(histogram.mean), **histogram.document()}


def parse(text: str, where: str) -> list[Result]:
    """Return the results that one or several documents describe, without the figures of each process.

    Args:
        text: the documents, one after the other.
        where: their name, for errors.

    Raises:
        ResultError: something else is there, or they are not of the same settings.
    """
    decoder = json.JSONDecoder()
    found: list[Result] = []
    at = 0
    try:
        while text := text[at:].lstrip():
            document, at = decoder.raw_decode(text)
            found.append(_parse(document, where))
    except (ValueError, RecursionError) as exc:
        raise ResultError(f"{where} is not JSON: {exc}") from exc
    if not found:
        raise ResultError(f"{where} is empty")
    if any(each.settings != found[0].settings for each in found):
        raise ResultError(f"{where} has runs with different settings")
    return found


def _parse(found: object, where: str) -> Result:
    if not isinstance(found, dict) or found.get("kind") != KIND or found.get("version") != VERSION:
        raise ResultError(f"{where} is not a result of {KIND} --json (version {VERSION})")
    figures = Figures()
    try:
        figures.seconds = float(found["seconds"])
        figures.cpu = float(found["cpu_seconds"])
        figures.behind, figures.checked = int(found["behind"]), int(found["checked"])
        for kind, each in found["operations"].items():
            series = figures.of(kind)
            series.ops, series.bytes = int(each["count"]), int(each["bytes"])
            series.latency = _histogram(each["latency_ns"])
            if "first_byte_ns" in each:
                series.first_byte = _histogram(each["first_byte_ns"])
            slices = each["slices"]
            series.width = float(slices["seconds"])
            series.slices = [
                Slice(int(ops), int(size), {bucket_of(int(low)): int(count) for low, count in counts})
                for ops, size, counts in zip(
                    slices["counts"], slices["bytes"], slices["latency_ns"], strict=True
                )
            ]
        for key, each in found["errors"].items():
            figures.failures[key] = Failure(int(each["count"]), str(each["example"]), int(each["exit_code"]))
        settings, server, client = dict(found["settings"]), dict(found["server"]), dict(found["client"])
        settings["work"] = str(settings["work"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ResultError(f"{where} is damaged: {type(exc).__name__}: {exc}") from exc
    return Result(settings, server, client, figures, [])


def _histogram(found: Mapping[str, object]) -> Histogram:
    rows = found["counts"]
    if not isinstance(rows, list):
        raise ValueError("no histogram")
    least, most, total = (int(str(found[key])) for key in ("least", "most", "sum"))
    return Histogram.of(((int(low), int(count)) for low, count in rows), least=least, most=most, total=total)


def write_whole(path: str, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        ResultError: it cannot be written.
    """
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as exc:
        raise ResultError(f"{path} cannot be written: {exc.strerror}") from exc


def read(path: str) -> str:
    """Return the text of a file.

    Raises:
        ResultError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as exc:
        raise ResultError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise ResultError(f"{path} is not text") from exc
