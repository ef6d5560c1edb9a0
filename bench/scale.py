"""Several connections and several processes at once: the total rate of a machine, and of a cluster."""

from __future__ import annotations

import secrets
import time
from typing import Any

from .contestants import Crew, Worker
from .machine import need_disk
from .rows import CHECKED, MIB, OURS, Row, Settings, drop, record
from .suites import OWN


def rows() -> list[Row]:
    """Put and get of 100 MiB by each of N ``connections`` in one process, or of N ``processes``."""
    found = []
    for work in ("put", "get"):
        for nodes in (1, 3):
            for kind, counts in (("connections", (1, 2, 4)), ("processes", (1, 2, 4))):
                for count in counts:
                    if count == 1 and kind == "processes":
                        continue
                    what = f"{count} {kind if count > 1 else kind[:-1]}"
                    title = f"{work}, {what}, R{nodes}"
                    options = {"size": 100 * MIB, kind: count}
                    found.append(
                        Row(
                            f"{work}-R{nodes}-{count}-{kind}",
                            title,
                            work,
                            options,
                            [OWN],
                            "MB/s",
                            nodes=nodes,
                        )
                    )
    return found


def measure(row: Row, settings: Settings) -> dict[str, Any]:
    """Run one row; the clock runs from the first start to the last end."""
    size = row.options["size"]
    connections = row.options.get("connections", 1)
    processes = row.options.get("processes", 1)
    need_disk(size * connections * processes * 2 * row.nodes)
    samples = []
    with settings.targets.open(row.nodes) as target, Crew(target.url) as crew:
        bucket = f"bench-{secrets.token_hex(6)}"
        workers: list[Worker] = []
        try:
            crew.help("create", bucket=bucket, storage=row.storage, replicas=row.nodes)
            urls = [target.urls[number % len(target.urls)] for number in range(processes)]
            for url in urls:
                workers.append(Worker("natsproto", url))  # noqa: PERF401 - those that started must be closed
            if row.work == "get":
                for number in range(processes):
                    for n in range(connections):
                        crew.help("put", bucket=bucket, prefix=f"object-{number}-{n}", size=size)
            for run in range(-1, settings.runs):
                prefix = "object" if row.work == "get" else f"run-{run}"
                start = time.perf_counter()
                for number, worker in enumerate(workers):
                    options = {"bucket": bucket, "size": size, "prefix": f"{prefix}-{number}"}
                    worker.send(
                        "spread", url=urls[number], inner=row.work, connections=connections, options=options
                    )
                figures = [worker.receive() for worker in workers]
                seconds = time.perf_counter() - start
                for number in range(processes):
                    for n in range(connections):
                        if row.work in CHECKED:
                            name = f"{prefix}-{number}-{n}"
                            crew.help("check_objects", bucket=bucket, prefix=name, size=size, count=1)
                            crew.help("remove", bucket=bucket, prefix=name, count=1)
                if run >= 0:  # the first one warms up
                    total = {key: sum(f[key] for f in figures) for key in figures[0]}
                    samples.append({**total, "seconds": seconds})
        finally:
            for worker in workers:
                worker.close()
            if settings.targets.kind == "url":
                drop(target.url, bucket)
    return record(row, target, {OURS: samples}, {}, {})
