"""Mutants of reads: which answer may be that to another question, sent to our inbox by somebody else."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = (
    Mutant(
        "no-chunks-by-one-answer",
        "objstore/bucket/counts.py",
        "if count or not await _are_there(bucket, subject):",
        "if True:",
        "that no chunks are there may answer another question",
        "unit/objstore/bucket/test_counts.py::test_that_there_are_none_is_proven",
    ),
    Mutant(
        "gone-by-one-answer",
        "objstore/bucket/locate.py",
        "for _ in range(LOOKS if expected else 1):",
        "for _ in range(1):",
        "that a name is gone may answer another question",
        "unit/objstore/bucket/test_locate.py::test_a_condition_is_not_met_by_one_look",
    ),
    Mutant(
        "list-without-proof",
        "objstore/listing/metas.py",
        "if listed >= most:",
        "if listed >= 0:",
        "the list of the metas may answer another question",
        "unit/objstore/listing/test_metas.py::test_the_answer_to_another_list",
    ),
    Mutant(
        "proof-without-chunks",
        "objstore/listing/metas.py",
        "            if _all_begin(last, subject[:-1]):",
        "            if True:",
        "a list of chunks may answer another question",
        "unit/objstore/listing/test_metas.py::test_the_answer_to_another_question_proves_nothing",
    ),
    Mutant(
        "a-later-chunk",
        "objstore/read/feed.py",
        "while message is not None and message.seq > cursor + 1:",
        "while False:",
        "a later chunk is never the next one",
        "unit/objstore/read/test_feed.py::test_the_answer_to_another_question",
    ),
    Mutant(
        "deleted-by-the-leader-alone",
        "objstore/bucket/bucket.py",
        "            if not proven:",
        "            if False:",
        "the leader's message may be another stream's, and the bucket's at that sequence another object's",
        "unit/objstore/bucket/test_bucket.py::test_the_number_of_another_streams_message",
    ),
    Mutant(
        "late-copies-by-the-leader-alone",
        "objstore/maintenance/gc.py",
        "start=1))[late.before :]",
        "start=1))[:]",
        "another stream's number of a late copy may be that of a chunk of the same object",
        "unit/objstore/maintenance/test_gc.py::test_late_copies_have_other_numbers_elsewhere",
    ),
    Mutant(
        "surplus-by-the-leader-alone",
        "objstore/write/upload_holders.py",
        "start=1))[before:])",
        "start=1))[:])",
        "another stream's number of a surplus chunk may be that of a chunk of the same object",
        "unit/objstore/write/test_upload_holders.py::test_what_lies_behind_is_known_by_a_consumer",
    ),
    Mutant(
        "copies-by-the-leader-alone",
        "objstore/write/chunks.py",
        "await check_shown(bucket, subject, {*seqs, *beside})",
        "await check_shown(bucket, subject, seqs)",
        "another stream's number of a copy may be that of a chunk of the same put",
        "unit/objstore/write/test_chunks.py::test_copies_are_removed_if_all_that_was_read_is_the_buckets",
    ),
    Mutant(
        "ids-without-secret",
        "objstore/bucket/numbered.py",
        "    if not secret:",
        "    if True:",
        "whoever guesses the id of a chunk keeps it from being stored",
        "integration/test_objstore_upload_ids.py::test_ids_that_somebody_else_has_used",
    ),
    Mutant(
        "guessable-new-chunks",
        "objstore/write/resumed.py",
        "        self._secret = token_bytes(SECRET_BYTES)",
        '        self._secret = b""',
        "so it is where no token names the chunks",
        "integration/test_objstore_upload_ids.py::test_new_chunks_that_no_token_names",
    ),
    Mutant(
        "any-stream-decides",
        "objstore/bucket/message_reads.py",
        "elif doubtful and message is not None and self._ways is PROOFS:",
        "elif False:",
        "a change is not decided by a direct get that another stream has answered",
        "unit/objstore/bucket/test_message_reads.py::test_where_it_decides_only_the_leader_tells",
    ),
)
