"""The version; ``pyproject.toml`` and the CONNECT line read it from here."""

__version__ = "0.1.0"
