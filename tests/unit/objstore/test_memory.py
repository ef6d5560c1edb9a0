"""Huge pages are a hint: given where it helps, and harmless everywhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from objstore.format import memory
from objstore.format.memory import HUGE_FROM, BytesTarget, ask_for_huge_pages

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def huge_kib() -> int:
    """KiB of this process that lie in huge pages."""
    text = Path("/proc/self/smaps_rollup").read_text("ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("AnonHugePages:"))


def test_new_memory_is_backed_by_huge_pages() -> None:
    given = THP.exists() and "[never]" not in THP.read_text("ascii")
    before = huge_kib() if given else 0
    target = BytesTarget(16 * HUGE_FROM)
    with target.slot(0, target.size) as slot:
        slot[:] = b"x" * target.size
    if given:
        assert huge_kib() - before >= target.size // 2048  # at least half: they may run out
    assert target.getvalue().count(b"x") == target.size


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
