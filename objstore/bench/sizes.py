"""Sizes of objects: one size, a range, or a distribution of both. An object's number decides its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

PARTS, PLACES = 0x6A09E667F3BCC909, 0xBB67AE8584CAA73B
"""Fractions of two irrational numbers, times 2**64: multiples of them spread evenly, and independently."""


def spread(number: int, fraction: int) -> float:
    """Return a value from 0 up to 1: those of successive numbers leave no gap and never repeat."""
    return (number * fraction & 0xFFFFFFFFFFFFFFFF) / 2.0**64


@dataclass(frozen=True)
class Part:
    """Sizes from ``least`` to ``most``, all equally likely.

    Attributes:
        least: the smallest size in bytes.
        most: the largest one.
        weight: how likely, compared with the weights of the other parts.
    """

    least: int
    most: int
    weight: int


class Sizes:
    """A distribution of sizes.

    Args:
        parts: at least one, with weights above 0.
        text: how it was written, for the report.
    """

    __slots__ = ("_total", "parts", "text")

    def __init__(self, parts: Sequence[Part], text: str) -> None:
        self.parts: tuple[Part, ...] = tuple(parts)
        self.text: str = text
        self._total = sum(part.weight for part in parts)

    def __repr__(self) -> str:
        return f"<Sizes {self.text}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sizes) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def of(self, number: int) -> int:
        """Return the size of an object in bytes."""
        parts = self.parts
        part = parts[0]
        if len(parts) > 1:
            place = spread(number, PARTS) * self._total
            for part in parts:
                place -= part.weight
                if place < 0:
                    break
        if part.least == part.most:
            return part.least
        return part.least + int(spread(number, PLACES) * (part.most - part.least + 1))

    @property
    def mean(self) -> float:
        """The mean size in bytes."""
        return sum((part.least + part.most) / 2 * part.weight for part in self.parts) / self._total

    @property
    def most(self) -> int:
        """The largest size in bytes."""
        return max(part.most for part in self.parts)

    @property
    def least(self) -> int:
        """The smallest size in bytes."""
        return min(part.least for part in self.parts)


def parse(text: str, size: Callable[[str], int]) -> Sizes:
    """Parse ``1MiB``, ``1KiB-1MiB`` or ``4KiB:80,1MiB:20``.

    Args:
        text: parts separated by commas, each with its weight after a colon (default: 1).
        size: parses one size; its exceptions pass through.

    Raises:
        ValueError: a part is no size, range or weight.
    """
    parts = []
    for word in text.split(","):
        what, colon, weight = word.strip().partition(":")
        if colon and (not weight.isascii() or not weight.isdigit() or not int(weight)):
            raise ValueError(f"{weight!r} is not a weight: write SIZE:WEIGHT, as in 4KiB:80,1MiB:20")
        low, dash, high = what.partition("-")
        least = size(low)
        most = size(high) if dash else least
        if most < least:
            raise ValueError(f"{what!r} is not a range: the smaller size comes first")
        parts.append(Part(least, most, int(weight) if colon else 1))
    return Sizes(parts, text.strip())
