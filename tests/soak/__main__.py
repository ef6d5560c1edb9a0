"""``python -m tests.soak``; see ``--help`` and ``tests/README.md``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
