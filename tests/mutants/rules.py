"""The mutants: what is replaced by what in which file, the rule that is broken, the test that must notice.

The text must occur exactly once in its file: ``unit/test_mutants.py`` checks that, so that a change of the
code takes its mutants along.
"""

from __future__ import annotations

from typing import NamedTuple

TABLE = "unit/objstore/test_commit_states.py::"
HISTORIES = "property/test_commit_simulation.py::test_nothing_is_lost"
ORDERS = "property/test_commit_search.py::test_nothing_goes_wrong"
WRITING = "unit/objstore/test_writing_rules.py::"
PROOF = "unit/objstore/test_leader_proof.py::"
ACKS = "unit/natsproto/test_js_acks.py::"
ORDERED = "unit/natsproto/test_js_ordered_over.py::"
ANSWERS = "adversity/test_objstore_answers.py::"


class Mutant(NamedTuple):
    """One wrong rule.

    Attributes:
        name: for the command line.
        file: below the root of the repository.
        text: what is replaced; it occurs once in the file.
        by: the replacement.
        rule: what it breaks.
        test: below ``tests``, as pytest names it; it fails because of the mutant.
    """

    name: str
    file: str
    text: str
    by: str
    rule: str
    test: str


STATES = "objstore/_commit_states.py"

MUTANTS = (
    # -- the table of the commit ------------------------------------------------------------------
    Mutant(
        "ack-before-chunks",
        STATES,
        "if seq > max(self.expected, self._after):",
        "if seq > self.expected:",
        "an acknowledgement from before the chunks proves nothing",
        TABLE + "test_a_sequence_that_cannot_be_proves_nothing",
    ),
    Mutant(
        "old-duplicate-replaces",
        STATES,
        "self._end(Step.KEPT, seq)",
        "self._landed(seq, now)",
        "a duplicate from before the expected revision has replaced something else",
        TABLE + "test_a_duplicate_from_before_what_is_expected",
    ),
    Mutant(
        "second-refusal-lost",
        STATES,
        "self._lost = self.copies == 1",
        "self._lost = True",
        "a refusal counts only when it answers the only copy",
        TABLE + "test_ambiguous_and_another_stands",
    ),
    Mutant(
        "second-refusal-denied",
        STATES,
        "self._denied = only",
        "self._denied = True",
        "a refusal counts only when it answers the only copy",
        TABLE + "test_a_refusal_of_a_second_copy_says_nothing_of_the_first",
    ),
    Mutant(
        "denied-believed",
        STATES,
        "if only and surely:",
        "if only:",
        "a refusal that anybody could make up is proven by what stands",
        TABLE + "test_denied_although_ours_stands",
    ),
    Mutant(
        "id-not-looked-at",
        STATES,
        "if standing.msg_id == self.msg_id:",
        "if self.nuid and standing.nuid == self.nuid:",
        "what stands with our id is ours, and with our nuid alone somebody's update of it",
        TABLE + "test_our_nuid_stands",
    ),
    Mutant(
        "nuid-not-looked-at",
        STATES,
        "elif self.nuid and standing.nuid == self.nuid:",
        "elif False:",
        "chunks that are named by what stands are committed",
        ORDERS,
    ),
    Mutant(
        "zero-window",
        STATES,
        "elif in_time and (self.expected or now - self._first <= ZERO_WINDOW):",
        "elif in_time:",
        "copies that expect nothing lie close together",
        TABLE + "test_expecting_nothing_copies_are_close",
    ),
    Mutant(
        "late-is-conflict",
        STATES,
        "self._retry(Step.SEND)\n            else:\n                self._retry(Step.UNKNOWN)",
        "self._retry(Step.SEND)\n            else:\n                self._retry(Step.CONFLICT)",
        "a copy may still be on its way when the time is over",
        ORDERS,
    ),
    Mutant(
        "stripped-sends",
        STATES,
        "in_time = self._in_time(now) and not standing.stripped",
        "in_time = self._in_time(now)",
        "whoever removed the chunks of ours has seen it stand",
        TABLE + "test_whoever_removed_the_chunks_has_seen_the_meta",
    ),
    Mutant(
        "winner-not-waited-for",
        STATES,
        "if in_time and self._lost and now < self._lost_until(now):",
        "if False:",
        "another copy makes a lost race doubtful",
        TABLE + "test_a_lost_race_is_told_when_the_winner_is_there",
    ),
    Mutant(
        "rename-finished-late",
        "objstore/_rename.py",
        "return info.metadata.get(RENAMING_AT, str(revision)) == str(revision)",
        "return True",
        "a rename has failed once its new name was changed",
        "integration/test_objstore_maintain.py::test_mark_whose_new_name_was_changed",
    ),
    Mutant(
        "upload-committed-again",
        "objstore/_upload.py",
        "if self._all_there and not 0 < revision <= self._last_seq:",
        "if False:",
        "chunks that were committed once may be about to go",
        "integration/test_objstore_resume.py::test_sent_again_after_its_name_was_purged",
    ),
    Mutant(
        "newer-chunks-removed",
        "objstore/_bucket.py",
        "await self.purge_chunks(info.nuid, before=info.revision)",
        "await self.purge_chunks(info.nuid)",
        "what is newer than a meta is not its own",
        "integration/test_objstore_resume.py::test_sent_again_after_its_chunks_were_removed",
    ),
    Mutant(
        "gap-in-a-batch",
        "objstore/_feed.py",
        'if header_int(block, b"Nats-Last-Sequence") not in (None, before):',
        "if False:",
        "a chunk that is lost in the middle of a batch is noticed",
        "adversity/test_objstore_read_faults.py::test_chunk",
    ),
    Mutant(
        "replaced-metas-told",
        "objstore/_list.py",
        "await _newer(bucket, page) if pages.resumed else {}",
        "{}",
        "an iteration that resumes tells of nothing replaced",
        "adversity/test_objstore_listing_faults.py::test_an_iteration_that_resumes_tells_of_nothing_replaced",
    ),
    Mutant(
        "publishes-for-others",
        "natsproto/jetstream/ordered.py",
        "if not is_flow_control(reply, self._stream, incarnation.name):",
        "if False:",
        "flow control is answered only where the server asks",
        "unit/natsproto/test_js_ordered.py::test_nothing_is_published_for_others",
    ),
    Mutant(
        "leader-behind-believed",
        STATES,
        "elif last_seq is not None and last_seq < self.expected:",
        "elif False:",
        "a leader that is behind the expected revision says nothing",
        TABLE + "test_a_leader_that_is_behind",
    ),
    Mutant(
        "last-sequence-not-asked",
        STATES,
        "elif revision < self.expected and last_seq is None:",
        "elif False:",
        "whether a leader is behind is asked before it is believed",
        TABLE + "test_a_leader_that_is_behind",
    ),
    Mutant(
        "ambiguous-is-lost",
        STATES,
        "elif not self._lost:",
        "elif False:",
        "silence is no lost race, whatever stands",
        TABLE + "test_ambiguous_and_another_stands",
    ),
    Mutant(
        "batch-moved-is-conflict",
        STATES,
        "self._end(Step.CONFLICT if self._lost else Step.UNKNOWN, 0)",
        "self._end(Step.CONFLICT, 0)",
        "another name of the batch that was changed is a conflict only after a refusal",
        TABLE + "test_another_name_of_the_batch_was_changed",
    ),
    Mutant(
        "removed-chunks-needed",
        STATES,
        "if standing.revision > self._acked and standing.nuid != self.replaced:",
        "if standing.revision > self._acked:",
        "chunks that are named by what stands are not removed",
        TABLE + "test_landed_and_what_stands_names_the_chunks_that_were_replaced",
    ),
    Mutant(
        "behind-removes",
        STATES,
        "self._end(Step.DONE, self._acked)  # behind, or purged",
        "self.removes = True\n            self._end(Step.DONE, self._acked)  # behind, or purged",
        "what was replaced is removed only when the leader shows that it is",
        TABLE + "test_landed_and_an_older_one_stands",
    ),
    Mutant(
        "made-up-ack",
        STATES,
        "self._end(Step.UNKNOWN, 0)  # nothing can stand",
        "self._end(Step.DONE, self._acked)  # nothing can stand",
        "an acknowledgement that what stands contradicts was made up",
        TABLE + "test_landed_and_an_older_one_than_the_acknowledgement_stands",
    ),
    Mutant(
        "certain-after-one-copy",
        STATES,
        "return self.step in (Step.CONFLICT, Step.REFUSED) or not self.copies",
        "return self.step in (Step.CONFLICT, Step.REFUSED) or self.copies < 2",
        "nothing is certain once a copy was sent",
        TABLE + "test_our_nuid_stands",
    ),
    Mutant(
        "replaces-the-first",
        STATES,
        "self._expect(self.revision, replaced)",
        "self._expect(self.revision, self.replaced)",
        "what is removed is what was replaced last",
        TABLE + "test_lost_and_the_last_writer_wins",
    ),
    Mutant(
        "cancelled-begins-anew",
        STATES,
        "self.last_writer_wins = False",
        "pass",
        "after a cancellation nothing new is begun",
        TABLE + "test_cancelled",
    ),
    Mutant(
        "purge-answer-lost",
        STATES,
        "if marker is Step.UNKNOWN or purged is None:",
        "if marker is Step.UNKNOWN:",
        "without the answer to the purge nothing is known of what it removed",
        TABLE + "test_after_full",
    ),
    Mutant(
        "full-and-back-again",
        STATES,
        "return AfterFull.GONE if standing.nuid != replaced or not replaced else AfterFull.AGAIN",
        "return AfterFull.GONE",
        "a late copy of what is deleted may stand again",
        TABLE + "test_after_full",
    ),
    # -- the shell around it ----------------------------------------------------------------------
    Mutant(
        "another-id-each",
        "objstore/_commit.py",
        "header = meta_header(expected, msg_id, self._ttl)",
        "header = meta_header(expected, token_hex(12), self._ttl)",
        "all copies carry one id",
        WRITING + "test_all_copies_are_alike",
    ),
    Mutant(
        "undo-when-unknown",
        "objstore/_commit.py",
        "elif states.certain and undo is not None:",
        "elif undo is not None:",
        "a cancelled put removes its chunks only when they are not committed for certain",
        HISTORIES,
    ),
    Mutant(
        "failure-instead-of-unknown",
        "objstore/_commit.py",
        "if failure is not None and (states.certain or isinstance(failure, StreamNotFoundError)):",
        "if failure is not None:",
        "an outcome that is not known is said to be unknown",
        WRITING + "test_an_outcome_that_is_not_known_is_said_to_be_unknown",
    ),
    # -- delete, update, rename -------------------------------------------------------------------
    Mutant(
        "shared-chunks-removed",
        "objstore/_change.py",
        "if not await shares_chunks(bucket, info):",
        "if True:",
        "chunks of a half-done rename belong to both names",
        WRITING + "test_chunks_of_a_half_done_rename_stay",
    ),
    Mutant(
        "purges-what-is-newer",
        "objstore/_change.py",
        "bucket.js.purge_stream(bucket.stream, subject=subject, seq=revision + 1)",
        "bucket.js.purge_stream(bucket.stream, subject=subject)",
        "a delete from a full bucket removes nothing newer than what it has read",
        WRITING + "test_a_full_bucket_is_freed_up_to_what_was_read",
    ),
    Mutant(
        "gravestone-names-chunks",
        "objstore/_rename.py",
        "replace(info, nuid=next_nuid(), metadata=unmarked(info))",
        "replace(info, metadata=unmarked(info))",
        "the delete marker of an old name does not name the chunks of the new one",
        WRITING + "test_the_marker_of_an_old_name_names_nothing",
    ),
    Mutant(
        "rename-onto-a-live-one",
        "objstore/_rename.py",
        "if target is not None and not target.deleted and not _same_chunks(target, old):",
        "if False:",
        "a rename never replaces a live object",
        "integration/test_objstore_meta.py::test_rename_onto",
    ),
    Mutant(
        "buries-a-stranger",
        "objstore/_rename.py",
        "if origin is not None and _half(origin, info):",
        "if origin is not None:",
        "a mark in the metadata is anybody's text: only the other half of a rename is acted upon",
        "integration/test_objstore_meta.py::test_forged_rename_marks",
    ),
    Mutant(
        "batch-half-looked-at",
        "objstore/_rename.py",
        "return standing if origin.revision == self._old.revision else None",
        "return standing",
        "a batch is a lost race, too, when its other name was changed",
        WRITING + "test_a_batch_whose_other_name_was_changed",
    ),
    Mutant(
        "link-onto-an-object",
        "objstore/_links.py",
        "if current is not None and not current.deleted and not current.is_link:",
        "if False:",
        "a link never replaces a live object",
        "integration/test_objstore_filed_elsewhere.py::test_a_link_never_replaces_it",
    ),
    # -- chunks -----------------------------------------------------------------------------------
    Mutant(
        "deletes-unread",
        "objstore/_chunks.py",
        "if message.subject == self._subject:",
        "if True:",
        "a message is deleted by its sequence only when it is ours",
        WRITING + "test_only_its_own_messages_are_deleted",
    ),
    Mutant(
        "copies-not-hashed",
        "objstore/_chunks.py",
        "if chunks != self._chunks or hasher.digest() != self._hasher.digest():",
        "if chunks != self._chunks:",
        "copies are removed when the rest is exactly what was sent",
        WRITING + "test_copies_are_removed_when_the_rest_is_what_was_sent",
    ),
    Mutant(
        "copies-not-counted",
        "objstore/_chunks.py",
        "right = stored == self._chunks",
        "right = stored >= self._chunks",
        "a chunk that is stored twice is found before the commit",
        ANSWERS + "test_chunk_twice",
    ),
    Mutant(
        "no-fence",
        "objstore/_chunks.py",
        "await fence(bucket, self._subject)",
        "pass",
        "a chunk that is only late is not sent again",
        WRITING + "test_a_chunk_that_is_stored_late_is_not_sent_again",
    ),
    Mutant(
        "fence-deletes-unread",
        "objstore/_doubt.py",
        "lambda stored: stored.subject == subject and not stored.data",
        "lambda stored: True",
        "a message is deleted by its sequence only when it is ours",
        PROOF + "test_an_answer_to_a_fence_that_names_something_else",
    ),
    # -- answers ----------------------------------------------------------------------------------
    Mutant(
        "any-domain",
        "natsproto/jetstream/publisher.py",
        "if ack.stream != self.stream or (ack.domain != self.domain and self.domain != ANY_DOMAIN):",
        "if ack.stream != self.stream:",
        "an acknowledgement counts with the expected domain",
        ACKS + "test_of_another",
    ),
    Mutant(
        "any-stream-refuses",
        "natsproto/jetstream/publisher.py",
        'if isinstance(named, str) and named not in ("", self.stream):',
        "if False:",
        "a refusal by another stream is none",
        ACKS + "test_of_another",
    ),
    Mutant(
        "order-not-looked-at",
        "natsproto/jetstream/publisher.py",
        "if seq <= self.last_seq:",
        "if seq < self.last_seq:",
        "acknowledged sequences rise with the order of publishing",
        "unit/natsproto/test_js_publisher.py::test_sequences_that_do_not_rise",
    ),
    # -- reading ----------------------------------------------------------------------------------
    Mutant(
        "older-meta-counts",
        "objstore/_locate.py",
        "self.newest = max(there, key=lambda subject: there[subject].seq)",
        "self.newest = next(iter(there))",
        "of all metas of a name the newest counts, wherever it is filed",
        "integration/test_objstore_locate.py::test_the_newest",
    ),
    Mutant(
        "counts-anew-unnoticed",
        "natsproto/jetstream/ordered.py",
        "if fresh or delivery.consumer_seq > self.consumer_seq:",
        "if delivery.consumer_seq > self.consumer_seq:",
        "a consumer that counts from one with something new has started over",
        ORDERED + "test_it_counts_from_one_with_something_new",
    ),
    Mutant(
        "heartbeat-counts-fewer",
        "natsproto/jetstream/ordered.py",
        "int(last[:20]) != incarnation.consumer_seq:",
        "int(last[:20]) > incarnation.consumer_seq:",
        "a heartbeat that has counted fewer comes from a consumer that has started over",
        ORDERED + "test_a_heartbeat_that_has_counted_fewer",
    ),
    Mutant(
        "told-twice",
        "natsproto/jetstream/ordered.py",
        "if not fresh:",
        "if False:",
        "nothing is handed on twice",
        ORDERED + "test_it_counts_beyond_where_it_was",
    ),
    Mutant(
        "list-without-goal",
        "objstore/_newest.py",
        "return seq >= self._seq",
        "return True",
        "a listing gets as far as the leader was",
        PROOF + "test_a_listing_gets_as_far_as_the_leader_was",
    ),
    Mutant(
        "missing-by-a-replica",
        "objstore/_feed.py",
        "return await bucket.stored_chunks(self._info.nuid) >= self._info.chunks",
        "return False",
        "chunks are missing when the leader has not got them",
        PROOF + "test_chunks_that_a_replica_lacks",
    ),
    Mutant(
        "another-chunk-for-it",
        "objstore/_feed.py",
        "return following.seq == part.seq_of(self._messages)",
        "return True",
        "a chunk whose sequence is known is never another one",
        PROOF + "test_a_chunk_whose_sequence_is_known",
    ),
    Mutant(
        "measured-too-short",
        "objstore/_range.py",
        "if len(seqs) >= stored:",
        "if True:",
        "an object ends where the leader has no more of it",
        PROOF + "test_measured_by_a_replica_that_is_behind",
    ),
    Mutant(
        "digest-not-compared",
        "objstore/_get.py",
        "if len(data) != info.size or new_hasher(data).digest() != expected:",
        "if len(data) != info.size:",
        "nothing is returned that has another digest than recorded",
        "integration/test_objstore_get.py::test_bit_flip_of_a_small_one",
    ),
)
