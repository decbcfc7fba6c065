"""A connection: uvicorn's, with an end to the patience with clients that send no request, or no whole one."""

import asyncio

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 65536
"""Bytes of a request's line and headers."""


class Connection(HttpToolsProtocol):
    """Uvicorn waits for the body of a request only as long as the application does; for what comes before it, for ever."""

    in_head = False
    head = 0
    hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that says nothing is closed like one that has nothing more to say."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._unset_keepalive_if_required()
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        began = self.in_head
        super().data_received(data)
        if began and self.in_head:
            self.head += len(data)
            if self.head > MOST:
                self.send_400_response(f"line and headers of the request are longer than {MOST} bytes: shorten them.")

    def on_message_begin(self) -> None:
        """A head begins: it has as long as nothing at all would have."""
        super().on_message_begin()
        self.in_head, self.head = True, 0
        self._relax()
        self.hurry = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def on_headers_complete(self) -> None:
        """It is whole."""
        self.in_head = False
        self._relax()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """In the form of all errors."""
        if msg == "Invalid HTTP request received.":
            msg = "the request is not HTTP: send it by HTTP/1.1."
        body = orjson.dumps({"error": msg})
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Close it; a client that does not read its answer would never let go of it otherwise."""
        self.transport.abort()

    def _relax(self) -> None:
        if self.hurry is not None:
            self.hurry.cancel()
            self.hurry = None
