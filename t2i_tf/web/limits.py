"""What a page takes: captions of a length, so many requests a minute, so many bytes; and whom its pages may ask."""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable

from t2i_tf.errors import UserError

CAPTION_LENGTH = 300
"""Characters of a caption."""

LARGEST_SEED = 2**31 - 1

MESSAGE_BYTES = 1_000_000
"""Of a request that carries no picture."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Browsers ask no other machine: pages work without an internet, and tell nobody that they were opened."""


def caption(typed: str | None) -> str:
    """A caption as it was typed -> in one line, blanks joined, without characters that cannot be printed.

    Raises UserError for one that is empty or too long.
    """
    lines = " ".join((typed or "").split())
    cleaned = "".join(character for character in lines if character.isprintable()).strip()
    if not cleaned:
        raise UserError("the caption is empty: write what the picture shows")
    if len(cleaned) > CAPTION_LENGTH:
        raise UserError(f"the caption has {len(cleaned):,} characters, and {CAPTION_LENGTH} is the most: shorten it")
    return cleaned


def seed(typed: float | None) -> int:
    """Raises UserError for what is no seed."""
    if typed is None or not (0 <= typed <= LARGEST_SEED and typed == int(typed)):
        raise UserError(f"the seed must be a whole number from 0 to {LARGEST_SEED:,}")
    return int(typed)


def truncation(chosen: float | None) -> float:
    """Raises UserError for what is no share of noise."""
    if chosen is None or not 0.0 <= chosen <= 1.0:
        raise UserError("the noise must be from 0 to 1")
    return float(chosen)


def picture_too_large(megabytes: int) -> str:
    """What is said of a picture file that has more."""
    return f"the picture has more than {megabytes} MB, which is the most: make it smaller, or save it as JPEG"


class Visits:
    """Counts what each visitor asks for in a minute. Safe to use from several threads."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic):
        self.per_minute, self.now = per_minute, now
        self.times: dict[str, collections.deque[float]] = {}
        self.lock = threading.Lock()

    def seconds_to_wait(self, visitor: str) -> int:
        """Counts a request and returns 0; or, when there were too many, counts none and returns a number of seconds."""
        now = self.now()
        with self.lock:
            for name in [name for name, times in self.times.items() if times[-1] <= now - 60.0]:
                del self.times[name]
            times = self.times.setdefault(visitor, collections.deque(maxlen=self.per_minute))
            if len(times) == self.per_minute and times[0] > now - 60.0:
                return math.ceil(times[0] + 60.0 - now)
            times.append(now)
            return 0

    def count(self, visitor: str) -> None:
        """Raises UserError when there were too many."""
        seconds = self.seconds_to_wait(visitor)
        if seconds:
            raise UserError(f"that is more than {self.per_minute} requests in a minute: wait {seconds} seconds")


class _TooLarge(Exception):
    pass


class Guard:
    """ASGI middleware: refuses bodies that are too large and uploads that are too many, and sets the policy above."""

    def __init__(self, app, visits: Visits, upload_bytes: int):
        self.app, self.visits, self.upload_bytes = app, visits, upload_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/").endswith("/upload") and scope["method"] == "POST"
        if is_upload:
            seconds = self.visits.seconds_to_wait((scope.get("client") or ("unknown",))[0])
            if seconds:
                await _refuse(
                    send, 429, f"too many requests: wait {seconds} seconds", [(b"retry-after", b"%d" % seconds)]
                )
                return
        # A form around the file adds little to its bytes.
        await self._passed(scope, receive, send, self.upload_bytes + 10_000 if is_upload else MESSAGE_BYTES)

    async def _passed(self, scope, receive, send, most):
        received, begun = 0, False

        async def counted():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _TooLarge
            return message

        async def with_policy(message):
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                policy = (b"content-security-policy", CONTENT_SECURITY_POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if announced.isdigit() and int(announced) > most:
                raise _TooLarge
            await self.app(scope, counted, with_policy)
        except _TooLarge:
            if not begun:
                await _refuse(send, 413, f"more than {most:,} bytes")


async def _refuse(send, status: int, why: str, headers=()) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
