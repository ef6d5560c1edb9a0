"""``python -m objstore`` runs the command ``objstore``."""

from __future__ import annotations

import sys

from objstore.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
