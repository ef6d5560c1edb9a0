"""``python -m bench``; see ``--help`` and ``bench/README.md``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
