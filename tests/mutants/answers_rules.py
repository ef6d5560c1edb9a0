"""Mutants of what an answer proves: a peer may have it sent to us, and nothing in it names our question."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = (
    Mutant(
        "a-batch-has-what-was-counted",
        "natsproto/jetstream/fast_publisher.py",
        "batch.taken = await self._look(batch)",
        "batch.taken = False",
        "another publisher's message may have been counted as one of a batch, which was not stored then",
        "unit/natsproto/jetstream/test_fast_publisher.py::test_another_message_was_counted",
    ),
    Mutant(
        "the-newest-of-a-batch-is-read-once",
        "natsproto/jetstream/fast_publisher.py",
        "for _ in range(READS):",
        "for _ in range(1):",
        "a message that is not the batch's may be the answer to a peer's request",
        "unit/natsproto/jetstream/test_fast_publisher.py::test_answers_to_others_reads",
    ),
    Mutant(
        "the-payload-of-a-batch-is-enough",
        "natsproto/jetstream/fast_publisher.py",
        "return message.subject == subject.decode() and _has_payload(message, payload, header)",
        "return _has_payload(message, payload, header)",
        "another publisher may guess the payload, but may not publish to the subject",
        "unit/natsproto/jetstream/test_fast_publisher.py::test_another_message_was_counted",
    ),
    Mutant(
        "not-found-at-once",
        "objstore/read/lookup.py",
        "for _ in range(LOOKS if bucket.replicated else 1):",
        "for _ in range(1):",
        "that there is no such object may be the answer to a peer's request",
        "unit/objstore/read/test_lookup.py::test_no_such_object_as_the_answer_to_anothers_request",
    ),
    Mutant(
        "chunks-in-doubt-are-read-once",
        "objstore/write/chunks.py",
        "for _ in range(REMOVALS):\n            if await self._remove(set()):",
        "for _ in range(1):\n            if await self._remove(set()):",
        "that chunks are missing may be the answer to a peer's request: their number is right",
        "unit/objstore/write/test_chunks.py::test_answers_to_others_requests_about_chunks_in_doubt",
    ),
    Mutant(
        "one-error-refuses-all-consumers",
        "objstore/bucket/bucket.py",
        "if again or not isinstance(exc, APIError):",
        "if True:",
        "the error of a peer's own consumer does not say that this user may create none",
        "unit/objstore/bucket/test_bucket.py::test_an_error_of_another_consumer_refuses_nothing",
    ),
    Mutant(
        "pages-end-by-one-answer",
        "objstore/listing/pages.py",
        "rounds = rounds - 1 if not await leader_end.reached(pages.cursor) else 0",
        "rounds = 0",
        "that no meta follows may be the answer to a peer's request, while a page is short",
        "unit/objstore/listing/test_pages.py::test_short_pages_and_no_more_at_the_leader",
    ),
    Mutant(
        "the-leader-is-told-to-have-no-more",
        "objstore/listing/metas.py",
        "return seq >= self._newest and not await self._more(seq)",
        "return seq >= self._newest",
        "an older meta than the newest may be told by the leader, who was asked for it by a peer",
        "unit/objstore/listing/test_metas.py::test_an_older_meta_is_told_as_the_newest",
    ),
    Mutant(
        "first-and-last-as-they-are-told",
        "objstore/read/by_sequence.py",
        "return there == total and not beyond",
        "return True",
        "another chunk of the object may be told as its first or last one: a consumer counts those around",
        "unit/objstore/read/test_by_sequence.py::test_another_chunk_of_the_object_as_the_first_or_the_last",
    ),
    Mutant(
        "gc-by-any-chunks-age",
        "objstore/maintenance/gc.py",
        "if last.time > before or await count_from(bucket, last.subject, last.seq + 1):",
        "if last.time > before:",
        "the chunk that is told as the newest one may be an older one: the put may be in progress",
        "unit/objstore/maintenance/test_gc.py::test_the_age_is_that_of_the_newest_chunk",
    ),
    Mutant(
        "the-first-answer-is-the-newest",
        "objstore/commit/references.py",
        "if subject in self._unreadable or subject in self._several:",
        "if subject in self._unreadable:",
        "of several metas of a name the leader's one answer may be an older one, which a peer has asked for",
        "unit/objstore/maintenance/test_gc.py::test_an_older_meta_of_the_name_is_no_answer",
    ),
    Mutant(
        "read-in-order-to-any-end",
        "objstore/listing/in_order.py",
        "if there - beyond <= count:",
        "if True:",
        "one answer may leave out metas that are read in order: a consumer counts them",
        "unit/objstore/listing/test_in_order.py::test_an_answer_to_another_request",
    ),
)
