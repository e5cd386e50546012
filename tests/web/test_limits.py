"""What a page takes and what it refuses."""

import asyncio

import pytest

from t2i_tf.errors import UserError
from t2i_tf.web import limits


@pytest.mark.parametrize(
    "typed, read",
    [
        ("a red flower", "a red flower"),
        ("  a \n red\t\tflower ", "a red flower"),
        ("a\x00 r\x1bed \ud800flower\u200b", "a red flower"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("une fleur \U0001f33c d'été", "une fleur \U0001f33c d'été"),
        ("x" * 300, "x" * 300),
    ],
)
def test_captions_become_one_printable_line(typed, read):
    assert limits.caption(typed) == read


@pytest.mark.parametrize("typed", [None, "", "  \n ", "\x00\x07"])
def test_empty_captions_are_told(typed):
    with pytest.raises(UserError, match="the caption is empty"):
        limits.caption(typed)


def test_long_captions_are_told_their_length():
    with pytest.raises(UserError, match="the caption has 10,000 characters, and 300 is the most: shorten it"):
        limits.caption("x" * 10_000)


@pytest.mark.parametrize("typed", [None, -1, 0.5, float("nan"), float("inf"), 2**31])
def test_seeds_are_whole_numbers_in_a_range(typed):
    assert limits.seed(7.0) == 7 and limits.seed(2**31 - 1) == 2**31 - 1
    with pytest.raises(UserError, match="the seed must be a whole number from 0 to 2,147,483,647"):
        limits.seed(typed)


@pytest.mark.parametrize("chosen", [None, -0.1, 1.1, float("nan")])
def test_noise_is_a_share(chosen):
    assert limits.truncation(0) == 0.0
    with pytest.raises(UserError, match="the noise must be from 0 to 1"):
        limits.truncation(chosen)


def test_each_visitor_has_so_many_requests_in_any_minute():
    clock = [0.0]
    visits = limits.Visits(3, now=lambda: clock[0])
    for clock[0] in (0.0, 10.0, 20.0):
        visits.count("one")
    with pytest.raises(UserError, match="more than 3 requests in a minute: wait 35 seconds"):
        clock[0] = 25.5
        visits.count("one")
    visits.count("another")
    clock[0] = 60.0  # the first of the three is a minute old
    visits.count("one")
    assert visits.seconds_to_wait("one") == 10
    clock[0] = 200.0
    visits.count("one")
    assert set(visits.times) == {"one"}, "visitors who are gone are forgotten"


def asked(guard, path, chunks, headers=(), client="10.0.0.1"):
    """-> status, headers and body of the answer to a POST."""
    sent = []
    parts = [{"type": "http.request", "body": c, "more_body": i < len(chunks) - 1} for i, c in enumerate(chunks)]

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers), "client": (client, 1)}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(part.get("body", b"") for part in sent[1:])


async def echo(scope, receive, send):
    """An application that reads all before it answers with the length."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


@pytest.fixture
def guard():
    return limits.Guard(echo, limits.Visits(3), upload_bytes=2_000_000)


def test_bodies_are_counted_and_announced_lengths_believed(guard):
    status, headers, body = asked(guard, "/gradio_api/queue/join", [b"x" * 600_000, b"x" * 400_000])
    assert (status, body) == (200, b"1000000")
    assert b"connect-src 'self'" in headers[b"content-security-policy"]
    assert asked(guard, "/gradio_api/queue/join", [b"x" * 600_000, b"x" * 400_001])[0] == 413
    assert asked(guard, "/gradio_api/queue/join", [], [(b"content-length", b"1000001")])[0] == 413


def test_uploads_may_be_larger_but_are_counted(guard):
    assert asked(guard, "/gradio_api/upload", [b"x" * 2_000_000])[0] == 200
    assert asked(guard, "/gradio_api/upload", [b"x" * 2_010_001])[0] == 413
    assert asked(guard, "/gradio_api/upload", [b"x"])[0] == 200
    status, headers, _ = asked(guard, "/gradio_api/upload/", [b"x"])
    assert status == 429 and 0 < int(headers[b"retry-after"]) <= 60
    assert asked(guard, "/gradio_api/upload", [b"x"], client="10.0.0.2")[0] == 200
