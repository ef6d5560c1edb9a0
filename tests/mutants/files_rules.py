"""Mutants of what is made of names that others chose: files, directories, their paths."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = (
    Mutant(
        "any-number-of-levels",
        "objstore/cli/paths.py",
        "if len(parts) > MAX_LEVELS:",
        "if False:",
        "a name that others chose makes at most a hundred directories",
        "unit/objstore/cli/test_sync.py::test_many_levels",
    ),
    Mutant(
        "any-number-of-levels-by-fsspec",
        "objstore/filesystem/paths.py",
        "if len(parts) > LEVELS:",
        "if False:",
        "the same for a tree that the file system for fsspec writes",
        "unit/objstore/filesystem/test_filesystem.py::test_a_tree_has_so_many_levels",
    ),
    Mutant(
        "directories-of-all-levels",
        "objstore/filesystem/tree.py",
        "withdirs and level < levels and",
        "withdirs and",
        "who needs files only does not build the paths of all directories",
        "unit/objstore/filesystem/test_filesystem.py::test_files_alone_take_memory_in_proportion_to_their_names",
    ),
    Mutant(
        "an-interrupt-ends-the-waiting",
        "objstore/filesystem/filesystem.py",
        "for task in begun:",
        "for task in ():",
        "an interrupt also ends what the loop in fsspec's thread does",
        "unit/objstore/filesystem/test_filesystem.py::test_an_interrupt_ends_the_work",
    ),
    Mutant(
        "gaps-as-others-say",
        "objstore/filesystem/reading.py",
        "min(options.max_chunk_size, MAX_GAP)",
        "options.max_chunk_size",
        "what is read between two ranges is not what the writer of a meta chooses",
        "unit/objstore/filesystem/test_reading.py::test_what_others_say_of_chunks_joins_no_ranges",
    ),
)
