"""How servers write answers of the JetStream API: the type first, no spaces."""

from __future__ import annotations

import json
import re
from typing import Any

from natsproto.jetstream.api.answers import answer_begins

_SUFFIX = re.compile(rb"\.(?:API\.(.+)|((?:STREAM|CONSUMER)\..+|INFO))$")


def api_answer(subject: bytes, document: dict[str, Any]) -> bytes | None:
    """The answer to a request; ``None`` when the subject is none of the API."""
    found = _SUFFIX.search(subject)
    if found is None:
        return None
    begins = answer_begins((found[1] or found[2]).decode())
    if not begins.endswith(b'"'):
        begins += b'other_response"'
    fields = {key: value for key, value in document.items() if key != "type"}
    return begins + (b"," if fields else b"") + json.dumps(fields, separators=(",", ":")).encode()[1:]
