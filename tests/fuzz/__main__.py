"""Fuzz a decoder: ``python -m tests.fuzz NAME --seconds N`` (atheris, from the extra ``dev``; CPython 3.11).

What is found beyond the committed corpus is kept in ``build/fuzz/NAME``; ``--merge`` takes into the corpus
what reaches new code. An input that breaks a property ends the run with another exit code than 0 and lies in
``build/fuzz/NAME`` as ``crash-…``: put it into ``tests/fuzz/corpus/NAME`` with the fix. ``all`` does every
target, one after the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[2]
NAMES = ("client", "server", "headers", "info", "meta", "pub_ack", "ack_subject", "subjects", "token")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--seconds", type=int, default=60, help="of each target (60)")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer (0: another one each time)")
    parser.add_argument("--merge", action="store_true", help="take into the corpus what reaches new code")
    return parser


def again(name: str, found: Path) -> str:
    """A program that is this one: a merge runs itself, and hands over arguments of libFuzzer."""
    program = found.with_suffix(".sh")
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m tests.fuzz {name} "$@"\n')
    program.chmod(0o755)
    return str(program)


def main() -> int:
    parser = build_parser()
    options, rest = parser.parse_known_args()
    if rest and not any(word.startswith("-merge_control_file=") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.name == "all":
        for name in NAMES:
            command = [sys.executable, "-m", "tests.fuzz", name, *sys.argv[2:]]
            done = subprocess.run(command, cwd=ROOT)
            if done.returncode:
                return done.returncode
        return 0
    try:
        import atheris
    except ImportError:
        print("atheris is missing: pip install -e '.[dev]' with CPython 3.11", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["natsproto", "objstore"], enable_loader_override=False):
        from .targets import MAX_LENGTH, TARGETS, mutate_number

    committed, found = CORPUS / options.name, ROOT / "build" / "fuzz" / options.name
    found.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_len={MAX_LENGTH}",
        "-rss_limit_mb=512",
        "-timeout=5",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-artifact_prefix={found}/",
        f"-seed={options.seed}",
    ]
    if rest:
        arguments = [sys.argv[0], *rest]
    elif options.merge:
        arguments[0] = again(options.name, found)
        arguments += ["-merge=1", str(committed), str(found)]
    else:
        arguments += [f"-max_total_time={options.seconds}", str(found), str(committed)]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = mutate_number(bytes(data), seed) if seed % 4 == 0 else None
        return atheris.Mutate(data, max_size) if changed is None else changed[:max_size]

    atheris.Setup(arguments, TARGETS[options.name], custom_mutator=mutate)
    print(f"fuzzing {options.name} for {options.seconds} s", flush=True)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
