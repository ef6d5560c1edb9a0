"""How much a parser accepts from its peer."""

from __future__ import annotations


class Limits:
    """What a parser accepts, in bytes. Anything larger is refused before it is buffered or allocated.

    Args:
        control_line: longest control line without its CRLF.
        info_line: the same for ``INFO`` and ``CONNECT``, which hold lists of addresses and tokens.
        header_block: longest header block (JetStream stores its length in 16 bits).
        message: header block plus payload. Not the server's ``max_payload``: servers add headers.
    """

    __slots__ = ("control_line", "header_block", "info_line", "message")

    def __init__(
        self,
        control_line: int = 64 * 1024,
        info_line: int = 1024 * 1024,
        header_block: int = 64 * 1024,
        message: int = 64 * 1024 * 1024,
    ) -> None:
        if min(control_line, info_line, header_block, message) < 1:
            raise ValueError("limits must be positive")
        self.control_line: int = control_line
        self.info_line: int = info_line
        self.header_block: int = header_block
        self.message: int = message

    def __repr__(self) -> str:
        return f"Limits({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"
