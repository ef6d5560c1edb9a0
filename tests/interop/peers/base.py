"""What every peer can be asked, in terms that none of them owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

TIMEOUT = 30.0  # seconds; no operation of a test takes a tenth of it


class PeerError(Exception):
    """The peer reported an error."""


@dataclass(frozen=True)
class Entry:
    """An object as a peer describes it; what the peer does not tell is ``None``."""

    name: str
    size: int
    chunks: int
    nuid: str
    digest: str  # as on the wire
    deleted: bool = False
    description: str = ""
    headers: dict[str, list[str]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    chunk_size: int | None = None
    link: tuple[str, str | None] | None = None


@dataclass(frozen=True)
class Status:
    """A bucket as a peer describes it."""

    description: str
    ttl: float  # seconds, 0 for none
    size: int
    sealed: bool


class Watch(ABC):
    """Changes from now on."""

    @abstractmethod
    async def next(self) -> tuple[str, bool]:
        """The next change: name, and whether it was deleted."""

    async def close(self) -> None:
        """End the watch."""
        return


class Peer(ABC):
    """One client of the object store with one bucket open. Errors are ``PeerError``."""

    name: str
    version: str

    @abstractmethod
    async def create_bucket(self, bucket: str, *, description: str = "", ttl: float = 0) -> None: ...

    @abstractmethod
    async def open_bucket(self, bucket: str) -> None: ...

    @abstractmethod
    async def put(
        self,
        name: str,
        data: bytes,
        *,
        description: str = "",
        headers: dict[str, list[str]] | None = None,
        metadata: dict[str, str] | None = None,
        chunk_size: int | None = None,
    ) -> None: ...

    @abstractmethod
    async def get(self, name: str) -> bytes: ...

    @abstractmethod
    async def info(self, name: str) -> Entry | None:
        """``None``: there is no such object, or it is deleted."""

    @abstractmethod
    async def list(self) -> list[Entry]:
        """What is not deleted."""

    @abstractmethod
    async def delete(self, name: str) -> None: ...

    @abstractmethod
    async def link(self, name: str, target: str) -> None: ...

    @abstractmethod
    async def bucket_link(self, name: str, bucket: str) -> None: ...

    @abstractmethod
    async def update(self, name: str, *, description: str, headers: dict[str, list[str]]) -> None: ...

    @abstractmethod
    async def rename(self, name: str, new_name: str) -> None: ...

    @abstractmethod
    async def watch(self) -> Watch: ...

    @abstractmethod
    async def seal(self) -> None: ...

    @abstractmethod
    async def status(self) -> Status: ...

    async def close(self) -> None:
        """Close what this object opened."""
        return
