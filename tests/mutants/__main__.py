"""Break each rule and see that its test notices: ``python -m tests.mutants [NAME…]``.

Each mutant of :mod:`tests.mutants.rules` is applied to a copy of the packages in a temporary directory; the
test named for it must fail there, and pass without it. Exit code 0: every mutant is killed; 1: one survives;
2: wrong usage.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .rules import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
PASSED, FAILED = 0, 1
HANGS = 300
"""Seconds after which a test that does not end counts as one that noticed."""


def prepare(folder: Path) -> None:
    """A copy of what is tested, and of its tests."""
    unwanted = shutil.ignore_patterns("__pycache__", "corpus")
    for name in ("natsproto", "objstore", "tests", "docs"):  # some tests read the documentation
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(folder: Path, test: str) -> tuple[int, str]:
    """Run one test in ``folder``; its exit code (-1: it hangs), and what it printed."""
    options = ("-n", "0", "-q", "-x", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *options, f"tests/{test}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANGS, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr


def survives(folder: Path, mutant: Mutant) -> str:
    """Apply a mutant and take it back; why it is not killed, else nothing."""
    path = folder / mutant.file
    source = path.read_text()
    if source.count(mutant.text) != 1:
        return f"its text occurs {source.count(mutant.text)} times"
    path.write_text(source.replace(mutant.text, mutant.by))
    try:
        code, output = run(folder, mutant.test)
    finally:
        path.write_text(source)
    if code == PASSED:
        return "nothing noticed it"
    return "" if code in (FAILED, -1) else f"pytest ended with {code}:\n{output}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (all)")
    names = parser.parse_args().names
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        prepare(folder)
        for test in sorted({mutant.test for mutant in chosen}):
            code, output = run(folder, test)
            if code != PASSED:
                print(f"FAILS without a mutant: {test}\n{output}", flush=True)
                failed += 1
        for mutant in chosen:
            why = survives(folder, mutant)
            failed += bool(why)
            print(f"{'SURVIVES' if why else 'killed':8}  {mutant.name}: {mutant.rule}", flush=True)
            print(f"{'':10}{why or mutant.test}", flush=True)
    print(f"{len(chosen)} mutants, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
