"""``completion``: print what a shell needs to complete commands and options.

The scripts are made by ``tests/support/completions.py`` and lie in ``completions/``.
"""

from __future__ import annotations

import os
from argparse import Namespace

from .output import Output

DIRECTORY = os.path.join(os.path.dirname(__file__), "completions")
SHELLS = ("bash", "zsh", "fish")


def completion(args: Namespace, out: Output) -> None:
    """``completion SHELL``."""
    with open(os.path.join(DIRECTORY, f"objstore.{args.shell}"), encoding="utf-8") as file:
        out.lines(file.read().splitlines())
