"""What a server says of itself: one line of JSON an event."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


class Events:
    """A log that never stops the answers: what cannot be written is lost, and standard error says so once."""

    def __init__(self, file: Path | None) -> None:
        """Lines go to the end of a file, or to standard output."""
        self.stream = sys.stdout.buffer if file is None else file.open("ab", buffering=0)
        self.failed = False

    def __call__(self, event: str, **fields: Any) -> None:
        """Write an event with the time, UTC."""
        line = orjson.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields})
        try:
            self.stream.write(line + b"\n")
            self.stream.flush()
        except OSError as error:
            if not self.failed:
                reason = (error.strerror or str(error)).lower()
                print(
                    f"luring: the log cannot be written ({reason}); requests are answered all the same.",
                    file=sys.stderr,
                )
            self.failed = True
        else:
            self.failed = False
