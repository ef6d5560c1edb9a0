"""Mutants of late copies of chunks: who tells them from damage, and who removes them."""

from __future__ import annotations

from .mutant import Mutant

COPIES = "unit/objstore/read/test_late_copies.py::"

MUTANTS = (
    Mutant(
        "whatever-follows-is-a-copy",
        "objstore/read/late_copies.py",
        "if copies and await",
        "if False and await",
        "a chunk too many is a copy only if it equals one of the object's",
        COPIES + "test_anything_else_is_damage",
    ),
    Mutant(
        "copies-of-what-is-not-the-object",
        "objstore/read/late_copies.py",
        "        assembly.finish()\n",
        "        pass\n",
        "copies are harmless behind a whole object only",
        COPIES + "test_copies_of_what_is_not_the_object",
    ),
    Mutant(
        "a-copy-in-the-place-of-a-chunk",
        "objstore/read/feed.py",
        "if late is None or not late.end <= self.cursor or 0 < late.first <= self.cursor:",
        "if late is None:",
        "what was read must be the chunks that were proven",
        COPIES + "test_a_replica_that_lacks_a_chunk",
    ),
    Mutant(
        "late-copies-are-damage",
        "objstore/read/feed.py",
        "late = await late_copies(self.bucket, self._info, ANY_WAY)",
        "late = None",
        "an acknowledged object stays readable",
        COPIES + "test_whole_reads",
    ),
    Mutant(
        "collects-behind-the-shorter-meta",
        "objstore/maintenance/gc.py",
        "most = max((each",
        "most = min((each",
        "a meta that counts fewer chunks costs the object none",
        "unit/objstore/maintenance/test_gc.py::test_a_meta_that_counts_fewer",
    ),
    Mutant(
        "one-meta-ends-the-object",
        "objstore/maintenance/gc.py",
        "if late is None or not late.first:\n            return None",
        "if late is None or not late.first:\n            continue",
        "what one meta calls a copy may be another's own chunk",
        "unit/objstore/maintenance/test_gc.py::test_a_meta_that_chooses_others_of_the_messages",
    ),
    Mutant(
        "known-by-the-nuid",
        "objstore/read/parts.py",
        "info.digest, info.revision",
        "info.digest, 0",
        "what is known of chunks is known of one meta",
        "unit/objstore/read/test_ranges.py::test_a_bucket_that_was_restored_from_a_copy",
    ),
    Mutant(
        "begins-behind-the-meta",
        "objstore/read/by_sequence.py",
        " or is_newer(self._bucket, self._info, last.seq):",
        ":",
        "no range is read of chunks that are newer than the meta",
        "unit/objstore/read/test_ranges.py::test_chunks_that_are_newer_than_the_meta",
    ),
    Mutant(
        "late-copies-beside-the-chunks",
        "objstore/write/chunks.py",
        "            if seq not in ours:\n",
        "            if False:\n",
        "what was not acknowledged may be a late copy",
        "unit/objstore/write/test_chunks.py::test_held_back_for_a_leader_that_leads_again",
    ),
)
