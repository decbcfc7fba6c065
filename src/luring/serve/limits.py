"""What a request may cost before it is understood: bytes, seconds, and how many come from one address."""

import asyncio
import math
from collections import OrderedDict
from time import monotonic
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDRESSES = 10_000
"""Addresses whose rate is remembered."""
AT_ONCE = 16
"""Bodies of the largest size that are held at once."""


class Limits:
    """Refuses with 413, 408, 429 or 503 before the application has to look."""

    def __init__(self, app: ASGIApp, *, most: int, seconds: float, rate: float | None) -> None:
        """Around an application.

        Args:
            app: what is protected.
            most: bytes of a body.
            seconds: for a body to come in.
            rate: requests a second from one address, with bursts of twice as many.
        """
        self.app, self.most, self.seconds, self.rate = app, most, seconds, rate
        self.held = 0
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        end = monotonic() + self.seconds
        size, late = 0, False
        whole = declared == b"0" and b"transfer-encoding" not in headers

        async def limited() -> Message:
            nonlocal size, whole, late
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(end - monotonic()):
                    message = await receive()
            except TimeoutError as error:
                late = True
                raise _refusal(408, f"the body took longer than {self.seconds:g} s: send it faster.") from error
            part = len(message.get("body", b""))
            size += part
            self.held += part
            whole = not message.get("more_body", False)
            if size > self.most:
                raise _too_large(self.most)
            if self.held > AT_ONCE * self.most:
                raise _refusal(503, "busy: try again in 1 s.", retry=1)
            return message

        async def lingering(message: Message) -> None:
            """Most clients read no answer before they have sent all: what they still send is thrown away until then."""
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not last or whole or late:
                await send(message)
                return
            await send({**message, "more_body": True})
            if await self._drained(receive, end):
                await send({"type": "http.response.body"})
            # Otherwise the answer has no end for the server, which closes the connection.

        too_large = not declared.isdigit() or len(declared) > 18 or int(declared) > self.most
        refused = self._refused(scope, too_large=too_large)
        if refused is not None:
            await refused(scope, receive, lingering)
            return
        try:
            await self.app(scope, limited, lingering)
        finally:
            self.held -= size

    def _refused(self, scope: Scope, *, too_large: bool) -> JSONResponse | None:
        if too_large:
            return answer_of(_too_large(self.most))
        # Whether a server is well is asked by machines that must not be refused.
        counts = self.rate and scope.get("client") and not scope["path"].startswith("/v2/health/")
        wait = self._wait(scope["client"][0]) if counts else 0.0
        if wait > 0:
            seconds = math.ceil(wait)
            return answer_of(_refusal(429, f"too many requests: try again in {seconds} s.", retry=seconds))
        return None

    @staticmethod
    async def _drained(receive: Receive, end: float) -> bool:
        """Whether the rest of the body came before the end."""
        try:
            async with asyncio.timeout(max(0.0, end - monotonic())):
                while (message := await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            return False
        return message["type"] == "http.request"

    def _wait(self, address: str) -> float:
        """Seconds until an address may ask again; 0 where it may now."""
        assert self.rate
        now, burst = monotonic(), max(1.0, 2 * self.rate)
        left, last = self.buckets.pop(address, (burst, now))
        left = min(burst, left + (now - last) * self.rate)
        allowed = left >= 1
        self.buckets[address] = (left - 1 if allowed else left, now)
        if len(self.buckets) > ADDRESSES:
            self.buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.rate


def _too_large(most: int) -> HTTPException:
    return _refusal(413, f"the body is larger than {most / 2**20:g} MiB: send fewer or smaller images at a time.")


def _refusal(status: int, sentence: str, retry: int | None = None) -> HTTPException:
    headers = {"connection": "close"} if status == 408 else {}
    return HTTPException(status, sentence, headers | ({"retry-after": str(retry)} if retry else {}))


def answer_of(error: Any) -> JSONResponse:
    """An error as every error goes out: `{"error": sentence}`."""
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))
