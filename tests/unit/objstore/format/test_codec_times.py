"""Times as servers and clients write them."""

from datetime import UTC, datetime

import pytest

from objstore.format import codec

NOW = datetime(2026, 11, 22, 14, 15, 10, 159027, tzinfo=UTC)


class TestTime:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-11-22T14:15:10.194695102Z", datetime(2026, 11, 22, 14, 15, 10, 194695, tzinfo=UTC)),
            ("2026-11-22T14:15:10Z", datetime(2026, 11, 22, 14, 15, 10, tzinfo=UTC)),
            ("2026-11-22t14:15:10.5z", datetime(2026, 11, 22, 14, 15, 10, 500000, tzinfo=UTC)),
            ("2026-11-22 14:15:10+02:00", datetime(2026, 11, 22, 12, 15, 10, tzinfo=UTC)),
            ("2026-11-22T14:15:10.159027+00:00", NOW),
            ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ],
    )
    def test_read(self, text, moment):
        read = codec.parse_rfc3339(text)
        assert read == moment
        assert read.tzinfo is UTC

    @pytest.mark.parametrize(
        "text",
        ["", "x", "2026-11-22", "20261122T141510Z", "2026-11-22T14:15:10", "2026-13-01T00:00:00Z",
         "2026-11-22T25:00:00Z", "2026-11-22T14:15:10.Z", "2026-11-22T14:15:10Z\n",
         "0001-01-01T00:00:00+05:00"],
    )  # fmt: skip
    def test_refused(self, text):
        with pytest.raises(ValueError):
            codec.parse_rfc3339(text)

    def test_round_trip(self):
        assert codec.parse_rfc3339(codec.format_rfc3339(NOW)) == NOW
