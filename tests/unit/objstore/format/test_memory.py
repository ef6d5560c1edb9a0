"""Huge pages are a hint: given where it helps, and harmless everywhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from objstore.format import memory
from objstore.format.memory import HUGE_FROM, REGION, SLOW_PAGE, SLOW_REGIONS, BytesTarget, ask_for_huge_pages

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GIVEN = THP.exists() and "[never]" not in THP.read_text("ascii")


def huge_kib() -> int:
    """KiB of this process that lie in huge pages."""
    text = Path("/proc/self/smaps_rollup").read_text("ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("AnonHugePages:"))


def filled(target: BytesTarget) -> int:
    """Fill it slot by slot; returns by how many KiB in huge pages the process grew."""
    before = huge_kib() if GIVEN else 0
    step = 128 * 1024
    for offset in range(0, target.size, step):
        with target.slot(offset, min(step, target.size - offset)) as slot:
            slot[:] = b"x" * len(slot)
    grown = huge_kib() - before if GIVEN else 0
    assert target.getvalue().count(b"x") == target.size
    return grown


def test_new_memory_is_backed_by_huge_pages() -> None:
    grown = filled(BytesTarget(16 * HUGE_FROM, lambda: 0.0))
    if GIVEN:
        assert grown >= 16 * HUGE_FROM // 2048  # at least half: they may run out


@pytest.mark.parametrize("fast", [0, 1, 3])
def test_a_system_that_takes_its_time_is_not_asked_again(fast: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda view: asked.append(len(view)))
    times = iter([0.0, SLOW_PAGE / 2] * fast + [0.0, SLOW_PAGE] * SLOW_REGIONS)
    filled(BytesTarget(8 * REGION, lambda: next(times)))
    assert asked == [REGION] * (fast + SLOW_REGIONS)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (HUGE_FROM - 1, []),
        (REGION, [REGION]),
        (REGION + 5, [REGION]),
        (REGION + HUGE_FROM, [REGION, HUGE_FROM]),
    ],
)
def test_stretches(size: int, wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda view: asked.append(len(view)))
    filled(BytesTarget(size, lambda: 0.0))
    assert asked == wanted
    asked.clear()
    filled(BytesTarget(size))
    assert asked == []


def test_what_was_handed_out_is_never_touched() -> None:
    """A payload that lies in a wrong place is moved to a slot that overlaps it."""
    target = BytesTarget(3 * REGION, lambda: 0.0)
    with target.slot(0, 2 * REGION) as slot:
        slot[:] = b"x" * len(slot)
    target.slot(REGION + 1, 1).release()
    target.slot(2 * REGION, 1).release()
    assert target.getvalue() == b"x" * (2 * REGION) + bytes(REGION)


def test_memory_is_taken_when_it_is_asked_for() -> None:
    target = BytesTarget(1 << 50)
    with pytest.raises(MemoryError):
        target.reserve()
    small = BytesTarget(3)
    small.reserve()
    with small.slot(1, 2) as slot:
        slot[:] = b"xy"
    small.reserve()  # keeps what is there
    assert small.getvalue() == b"\0xy"
    assert BytesTarget(0).getvalue() == b""
    assert BytesTarget(2).getvalue() == b"\0\0"


@pytest.mark.parametrize("size", [0, 1, HUGE_FROM - 1])
def test_small_memory_is_left_alone(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_madvise", lambda: pytest.fail("asked for"))
    ask_for_huge_pages(memoryview(bytearray(size)))


@pytest.mark.parametrize("offset", [0, 1, 4095, 4097])
def test_unaligned_memory_keeps_its_content(offset: int) -> None:
    data = bytearray(b"y" * (HUGE_FROM + 8192))
    with memoryview(data) as view, view[offset : offset + HUGE_FROM] as part:
        ask_for_huge_pages(part)
        part[:] = bytes(HUGE_FROM)
    assert data.count(b"y") == 8192
    data.clear()  # no view of it is left behind


def test_a_system_without_it_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    memory._madvise.cache_clear()
    try:
        ask_for_huge_pages(memoryview(bytearray(HUGE_FROM)))
        assert memory._madvise() is None
    finally:
        memory._madvise.cache_clear()
