"""Requests to the JetStream API of one client, and listings that come page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from .._values import seconds, text
from ..errors import (
    BadSubjectError,
    ConfigError,
    MaxPayloadError,
    NatsError,
    NoRespondersError,
    PermissionsViolationError,
    RemoteProtocolError,
    RequestTimeoutError,
    UnsupportedFeatureError,
)
from ..subjects import api_subject, check_names, check_publish_subject, check_subscribe_subject
from .all_answers import all_answers, own_answer
from .api.account import AccountInfo
from .api.answers import answer_begins
from .api.codec import MAX_DOCUMENT, dumps, is_number, loads
from .api.errors import JetStreamNotEnabledError, StreamNotFoundError, api_error, check_new_name
from .api.paging import LIST_PAUSE, LIST_TRIES, MAX_SECONDS, Incomplete, Paging, memory_of

if TYPE_CHECKING:
    from ..aio.client import Client

T = TypeVar("T")


ASKED_AGAIN = 10
"""Times that an info is asked for while the answer is about something else."""


class ApiRequests:
    """The API as one client asks it; what :class:`natsproto.JetStreamContext` is built on."""

    def __init__(
        self, client: Client, *, domain: str | None = None, prefix: str | None = None, timeout: float = 5.0
    ) -> None:
        if domain is not None and prefix is not None:
            raise ConfigError("give a domain or an API prefix, not both")
        if domain is not None:
            prefix = f"$JS.{check_new_name('domain', domain)}.API"
        self.client = client
        self.domain = domain
        self.prefix: str = check_publish_subject("$JS.API" if prefix is None else prefix).decode()
        client.api_prefixes.add(f"{self.prefix}.")
        self.timeout = timeout
        self._whole_streams: set[str] = set()  # streams that may be read as a whole, but not by subject
        self._copies: dict[tuple[str, bytes], tuple[bool, float]] = {}  # see MessageReads._may_answer()
        self._level: tuple[int, int] | None = None  # how often reconnected; the API level told then
        self._own_domain: tuple[int, str] | None = None  # likewise; the account's domain
        # The times of creation of streams: no other one of that name counts. Another domain may have one, and
        # another account whose API is imported. An info about such a one is ignored; if no other comes for
        # some time, the stream was deleted and created again.
        self.known_streams: dict[str, object] = {}

    def subject(self, suffix: str) -> bytes:
        """Return the API subject for ``suffix``, checked."""
        return api_subject(f"{self.prefix}.{suffix}")

    async def request(
        self,
        suffix: str,
        document: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> dict[str, object]:
        """Send an API request and return the answer's document.

        Args:
            suffix: the subject after the API prefix.
            document: the request.
            timeout: in seconds, instead of the context's.
            limit: bytes of the answer, instead of 4 MiB.

        Raises:
            APIError: the server refused; the class is that of its error code.
            RemoteProtocolError: the answer is not usable: too large, too many values, not JSON.
            JetStreamNotEnabledError: JetStream is off on this server.
            NoRespondersError: nobody answers: JetStream has no leader, or the API prefix or domain is wrong.
            RequestTimeoutError, StaleConnectionError: whether the request was carried out is unknown.
        """
        return await self._ask(self.subject(suffix), document, timeout, limit)

    async def _ask(
        self,
        subject: bytes,
        document: Mapping[str, object] | None = None,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> dict[str, object]:
        """:meth:`request` to a complete subject."""
        payload = b"" if document is None else dumps(document)
        client = self.client
        client.connection.check_open()
        name = subject.decode()[len(self.prefix) + 1 :]
        if len(payload) > client.max_payload:
            raise MaxPayloadError(f"the API request {name!r} exceeds the server's max_payload")
        question, begins = name.split("."), answer_begins(name)
        again = question[1:2] == ["INFO"]
        for _ in range(ASKED_AGAIN if again else 1):
            try:
                msg = await client.request_frame(
                    subject, payload, b"", self.timeout if timeout is None else timeout, begins=begins
                )
            except NoRespondersError as exc:
                raise no_answer_error(client, exc) from None
            answer = loads(msg.payload, limit)
            if "error" in answer:
                raise api_error(answer["error"])
            if not _answers(question, answer, self._expected_domain):
                continue
            if self._is_same(question, answer):
                return answer
            if again:
                own = await own_answer(self, name, payload, partial(self._is_own, question), limit)
                if own is not None:
                    return own
            raise StreamNotFoundError(404, 10059, f"stream {question[2]!r} was deleted and created again")
        if await self._learn_domain(question, answer):
            return await self._ask(subject, document, timeout, limit)
        raise RemoteProtocolError(f"the answer to {name!r} is about another stream or consumer")

    def _is_own(self, question: list[str], answer: dict[str, object]) -> bool:
        """Whether an answer is about what was asked for, and about the stream that is known."""
        return _answers(question, answer, self._expected_domain) and self._is_same(question, answer)

    def _is_same(self, question: list[str], answer: dict[str, object]) -> bool:
        """Whether an answer about a stream is about the one that is known."""
        if not self.known_streams or question[0] != "STREAM" or question[1] not in ("INFO", "UPDATE"):
            return True
        return self.known_streams.get(question[2]) in (None, answer.get("created"))

    @property
    def _learnt_domain(self) -> str | None:
        """What :meth:`_learn_domain` has found out, on this connection."""
        own = self._own_domain
        return own[1] if own is not None and own[0] == self.client.connection.stats.reconnects else None

    @property
    def _expected_domain(self) -> str | None:
        """The domain of the API that is asked; "" = it has none, ``None`` = it is not known."""
        learnt = self._learnt_domain
        if learnt is not None:
            return learnt
        if self.domain is not None:
            return self.domain
        if self.prefix == "$JS.API":  # a server with JetStream answers this itself
            info = self.client.connection.info
            return str(info.get("domain", "")) if info.get("jetstream") is True else None
        tokens = self.prefix.split(".")
        return tokens[1] if len(tokens) == 3 and tokens[0] == "$JS" and tokens[2] == "API" else None

    async def _learn_domain(self, question: list[str], answer: dict[str, object]) -> bool:
        """Whether the API that is asked has another domain than expected, the one that an info has.

        A leaf node may have ``default_js_domain`` for the account: then ``$JS.API`` is another domain's. And
        ``$JS.x.API`` may be the imported API of another account. Somebody may have another API answer, too:
        then not all answers have that domain. A user who may not ask learns it from the refusal: the server
        names the subject that it has mapped ours to.
        """
        told, domains = answer.get("domain", ""), set[object]()
        if question[:2] != ["STREAM", "INFO"] or not isinstance(told, str) or told == self._expected_domain:
            return False
        try:
            complete = await all_answers(self, "INFO", lambda info: domains.add(str(info.get("domain", ""))))
        except PermissionsViolationError as exc:
            if self.prefix != "$JS.API" or not told or exc.subject != f"$JS.{told}.API.INFO":
                raise
            complete, domains = True, {told}
        if not complete or domains != {told}:
            return False
        self._own_domain = (self.client.connection.stats.reconnects, told)
        return True

    @property
    def answers_are_known(self) -> bool:
        """Whether an info about a stream tells that it comes from the API that was asked.

        Not where another account's API is imported, or the server has no JetStream itself, or the domain is
        known from answers alone: another stream of the same name may be told instead.
        """
        return self._expected_domain is not None and self._learnt_domain is None

    def _appended(self, suffix: str, subject: str) -> bytes | None:
        """Return the API subject for ``suffix`` with a stream's subject appended, for rights per subject.

        ``None`` when that is no subject, or too long for a control line: then only the request can hold it.
        """
        try:
            whole = check_subscribe_subject(f"{self.prefix}.{suffix}.{text(subject)}")
            check_names(whole, b"r" * self.client.reply_length)
        except BadSubjectError:
            return None
        return whole

    async def account_info(self) -> AccountInfo:
        """Limits and usage of the account, with its tiers (``$JS.API.INFO``)."""
        return AccountInfo(await self.request("INFO"))

    async def _require_level(self, level: int, feature: str, minimum: str) -> None:
        """Make sure that the servers behind the API have a feature that an older one would ignore.

        INFO tells the API level (ADR-44) since nats-server 2.12, the account's info since 2.11. Only the
        latter comes from the servers that the prefix leads to. It is asked once per connection.

        Raises:
            UnsupportedFeatureError: their level is lower.
        """
        connection = self.client.connection
        own = connection.info.get("api_lvl")
        if self.prefix == "$JS.API" and is_number(own) and own >= level:
            return
        known = self._level
        if known is None or known[0] != connection.stats.reconnects:
            told = (await self.account_info()).api_level
            self._level = known = (connection.stats.reconnects, told or 0)
        if known[1] < level:
            raise UnsupportedFeatureError(feature, minimum)

    async def _pages(
        self,
        what: str,
        suffix: str,
        document: Mapping[str, object],
        entries: Callable[[dict[str, object], int], tuple[dict[str, T], int, int]],
    ) -> dict[str, T]:
        """Return all entries of a listing by their names.

        Args:
            what: the listing, for error texts.
            suffix, document: the request, without the offset.
            entries: returns an answer's entries, their number as the server counts it, and their bytes in
                memory; it also gets the offset that was asked for, and may raise ``Incomplete``.

        Raises:
            RequestTimeoutError: entries were removed, all the time, faster than pages come.
        """

        async def listing() -> dict[str, T]:
            found: dict[str, T] = {}
            paging, more = Paging(what), True
            while more:
                request = {**document, "offset": paging.offset}
                answer = await self.request(suffix, request, limit=MAX_DOCUMENT)
                page, count, memory = entries(answer, paging.offset)
                if not count:
                    paging.end()
                    break
                known = len(found)
                found.update(page)
                more = paging.add_page(answer, page, count, new=len(found) - known, memory=memory)
            return found

        try:
            async with asyncio.timeout(MAX_SECONDS):
                for attempt in range(LIST_TRIES):
                    try:
                        return await listing()
                    except Incomplete:  # the server counts them a moment earlier: some may be gone
                        await asyncio.sleep(LIST_PAUSE * attempt)
        except RequestTimeoutError:
            raise
        except TimeoutError:
            raise RequestTimeoutError(f"{what} took more than {seconds(MAX_SECONDS)} s") from None
        raise RequestTimeoutError(f"no list of {what} had all of them")

    async def _names(self, what: str, suffix: str, key: str, document: Mapping[str, object]) -> list[str]:
        def names(answer: dict[str, object], asked: int) -> tuple[dict[str, None], int, int]:
            page = listed(answer, key)
            return dict.fromkeys(each for each in page if isinstance(each, str)), len(page), memory_of(page)

        return list(await self._pages(what, suffix, document, names))


def _answers(question: list[str], answer: dict[str, object], domain: str | None) -> bool:
    """Whether an answer about a stream or consumer names the one that was asked for.

    Whoever may ask for another one can have the answer sent to our inbox. Another domain may have a stream of
    the same name. Every info has the domain, if there is one; few answers to creations and updates have it.
    """
    if len(question) < 3 or question[1] not in ("INFO", "CREATE", "UPDATE"):
        return True
    if question[0] == "STREAM":
        config = answer.get("config")
        told = answer.get("domain", "" if question[1] == "INFO" else domain)
        here = domain is None or told == domain
        return here and isinstance(config, dict) and config.get("name") == question[2]
    return question[0] != "CONSUMER" or (
        answer.get("stream_name") == question[2] and (len(question) < 4 or answer.get("name") == question[3])
    )


def listed(answer: dict[str, object], key: str) -> list[object]:
    page = answer.get(key)
    return page if isinstance(page, list) else []


def no_answer_error(client: Client, exc: NoRespondersError) -> NatsError:
    """Return the error for an API subject without responders: JetStream is off, or has no leader now."""
    info = client.connection.info
    if info and info.get("jetstream") is not True:
        return JetStreamNotEnabledError(503, 10076, "JetStream is off on this server: start it with -js")
    return NoRespondersError(exc.subject, "JetStream has no leader, or the API prefix or domain is wrong")
