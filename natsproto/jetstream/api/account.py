"""What an account uses of JetStream, and may use: the answer to ``$JS.API.INFO``."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import RemoteProtocolError
from .codec import number
from .models import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits(Document):
    """Limits of an account, or of one of its tiers; -1 = none.

    Attributes:
        max_memory, max_storage: bytes of all streams in memory and on disk.
        max_streams, max_consumers: how many of them; ``max_consumers`` is per stream.
        max_ack_pending: the most that a consumer may set.
        memory_max_stream_bytes, storage_max_stream_bytes: bytes of one stream.
        max_bytes_required: each stream must set ``max_bytes``.
        extra: fields that this version does not know.
    """

    max_memory: int = -1
    max_storage: int = -1
    max_streams: int = -1
    max_consumers: int = -1
    max_ack_pending: int = -1
    memory_max_stream_bytes: int = -1
    storage_max_stream_bytes: int = -1
    max_bytes_required: bool = False
    extra: dict[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUsage:
    """What an account, or one of its tiers, uses and may use.

    Attributes:
        memory, storage: bytes in use.
        reserved_memory, reserved_storage: bytes that streams reserve by their ``max_bytes`` (2.10).
        streams, consumers: how many there are.
        limits: what is allowed; none in the totals of an account with tiers.
    """

    memory: int
    storage: int
    reserved_memory: int
    reserved_storage: int
    streams: int
    consumers: int
    limits: AccountLimits

    @classmethod
    def from_json(cls, document: dict[str, object]) -> AccountUsage:
        """Build from the API's JSON.

        Raises:
            RemoteProtocolError: a field is of another type.
        """
        limits = document.get("limits", {})
        if not isinstance(limits, dict):
            raise RemoteProtocolError("an API answer has limits that are not an object")
        return cls(
            memory=number(document, "memory"),
            storage=number(document, "storage"),
            reserved_memory=number(document, "reserved_memory"),
            reserved_storage=number(document, "reserved_storage"),
            streams=number(document, "streams"),
            consumers=number(document, "consumers"),
            limits=AccountLimits.from_json(limits),
        )


class AccountInfo(dict[str, object]):
    """Usage and limits of an account. As a mapping it is the whole document, as the server sent it.

    Attributes:
        usage: of the whole account.
        tiers: the same of each tier (``R1``, ``R3``), empty for an account without tiers. A stream counts
            towards the tier of its replicas.
        domain: the JetStream domain, ``None`` when it has none.
        api_level: which features the server has (ADR-44); ``None`` before nats-server 2.11.
        api_total, api_errors: API requests of the account since the server started, and refused ones.
        api_inflight: requests that are being served (2.10).
    """

    def __init__(self, document: dict[str, object]) -> None:
        """Build from the API's JSON.

        Raises:
            RemoteProtocolError: a field is of another type.
        """
        super().__init__(document)
        api, tiers, domain = document.get("api", {}), document.get("tiers", {}), document.get("domain")
        if not isinstance(api, dict) or not isinstance(tiers, dict):
            raise RemoteProtocolError("an answer to INFO has its api or tiers of the wrong type")
        self.usage: AccountUsage = AccountUsage.from_json(document)
        self.tiers: dict[str, AccountUsage] = {
            name: AccountUsage.from_json(tier) for name, tier in tiers.items() if isinstance(tier, dict)
        }
        self.domain: str | None = domain if isinstance(domain, str) else None
        self.api_level: int | None = number(api, "level") if "level" in api else None
        self.api_total: int = number(api, "total")
        self.api_errors: int = number(api, "errors")
        self.api_inflight: int = number(api, "inflight")
