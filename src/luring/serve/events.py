"""What a server says of itself: one line of JSON an event."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


class Events:
    """A log that never stops the answers: what cannot be written is lost, and standard error says so once."""

    def __init__(self, file: Path | None) -> None:
        """Lines go to the end of a file, which several processes may share, or to standard output."""
        self.place = (
            sys.stdout.fileno() if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        )
        self.warned = self.torn = False

    def __call__(self, event: str, **fields: Any) -> None:
        """Write an event with the time, UTC."""
        told = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        # What a full disk tore stays a line of its own.
        line = b"\n" * self.torn + orjson.dumps(told, default=str) + b"\n"
        try:
            written = os.write(self.place, line)
        except OSError as error:
            self._lost((error.strerror or str(error)).lower())
        else:
            self.torn = written < len(line)
            if self.torn:
                self._lost("no space left on device")

    def _lost(self, reason: str) -> None:
        if not self.warned:
            print(
                f"luring: the log cannot be written ({reason}); requests are answered all the same.",
                file=sys.stderr,
                flush=True,
            )
        self.warned = True
