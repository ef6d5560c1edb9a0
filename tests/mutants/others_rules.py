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
)
