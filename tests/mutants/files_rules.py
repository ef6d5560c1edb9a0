"""Mutants of what is made of names that others chose: files, directories, their paths."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = (
    Mutant(
        "unfinished-name-written",
        "objstore/cli/paths.py",
        "        if is_unfinished(part):",
        "        if False:",
        "no object is written under the name of another one's unfinished file",
        "unit/objstore/cli/test_fetching.py::test_a_name_of_an_unfinished_transfer",
    ),
    Mutant(
        "filled-file-not-compared",
        "objstore/read/files.py",
        "if not os.path.samestat(itself, os.stat(temporary, dir_fd=dir_fd, follow_symlinks=False)):",
        "if False:",
        "a file gets the target's name only if it is the one that was filled and verified",
        "unit/objstore/read/test_files.py::test_what_is_filled_has_lost_its_name",
    ),
    Mutant(
        "one-file-for-two",
        "objstore/read/files.py",
        "if (there.st_dev, there.st_ino) in self._files:",
        "if False:",
        "no object replaces the file that the same command has written for another one",
        "unit/objstore/cli/test_copying.py::test_two_names_of_one_file",
    ),
    Mutant(
        "source-replaced-before-its-turn",
        "objstore/cli/copying.py",
        "if target in self._sources and target != source:",
        "if False:",
        "no step replaces the source of another one",
        "unit/objstore/cli/test_copying.py::test_a_target_that_is_the_source_of_another",
    ),
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
        "one-object-stops-all",
        "objstore/bucket/at_once.py",
        "if await ends(number, exc):",
        "if await ends(number, exc) or True:",
        "an object that others have spoilt does not keep the rest of a tree from being read",
        "unit/objstore/filesystem/test_several.py::test_get",
    ),
    Mutant(
        "each-object-waits-for-the-server",
        "objstore/filesystem/several.py",
        "return not retryable(_error(exc)) or not await self._answer()",
        "return not retryable(_error(exc))",
        "thousands of objects do not each wait for a server that is away",
        "unit/objstore/filesystem/test_several.py::test_no_answer",
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
