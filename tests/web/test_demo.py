"""The page as its server answers: several visitors, limits, ports; without a browser."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from t2i_tf import cli, inference
from t2i_tf.config import DemoConfig
from t2i_tf.errors import UserError
from t2i_tf.web import demo

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[web]'")

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def served(**options):
    """-> the address of a page, and the lines that were said."""
    stop, ready, lines = threading.Event(), threading.Event(), []

    def say(line):
        lines.append(line)
        if line.startswith("stop with"):
            ready.set()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        served = pool.submit(demo.serve, DemoConfig(port=0, **options), say, stop)
        served.add_done_callback(lambda _: ready.set())
        try:
            ready.wait(120)
            if served.done():
                served.result()
            yield next(line for line in lines if line.startswith("open ")).split()[1], lines
        finally:
            stop.set()
            served.result(60)


@pytest.fixture(scope="module")
def page(runs):
    with served(run_dir=str(runs / "attngan"), requests_per_minute=40) as (url, lines):
        yield url, lines


def client(url):
    from gradio_client import Client

    return Client(url, verbose=False, analytics_enabled=False)


def test_it_says_where_it_is_and_how_to_stop(page, runs):
    url, lines = page
    assert lines == [f"{runs / 'attngan'}: attngan, step 7", f"open {url}", "stop with Ctrl-C"]


@pytest.mark.slow
def test_visitors_at_once_get_their_own_pictures(page, runs):
    live = inference.load(runs / "attngan").generate(["a red flower"] * 4, [0, 1, 2, 3])[-1]
    visitors = [client(page[0]) for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(visitor.predict, "a red flower", seed, 1.0, api_name="/draw")
            for seed, visitor in enumerate(visitors)
        ]
        answers = [job.result(60) for job in jobs]
    from web.test_markup import Reader, decoded

    for seed, (_, result, gallery) in enumerate(answers):
        (link,) = Reader(result).of("a")
        np.testing.assert_array_equal(decoded(link["href"])[1], live[seed])
        titles = [found["title"] for found in Reader(gallery).of("button", "t2i-tile")]
        assert titles == [f"a red flower (seed {seed})"], "a visitor's gallery is his own"
    _, _, gallery = visitors[0].predict("a blue flower", 7, 1.0, api_name="/draw")
    titles = [found["title"] for found in Reader(gallery).of("button", "t2i-tile")]
    assert titles == ["a blue flower (seed 7)", "a red flower (seed 0)"]


@pytest.mark.parametrize(
    "caption, seed, told",
    [
        ("", 0, "The caption is empty"),
        ("red " * 2500, 0, "The caption has 9,999 characters, and 300 is the most"),
        ("🌼🌼", 0, "The caption has no word that this run was trained on"),
        ("a red flower", -1, "The seed must be a whole number"),
    ],
)
def test_what_is_wrong_is_told_in_the_page(page, caption, seed, told):
    wrong, *_ = client(page[0]).predict(caption, seed, 1.0, api_name="/draw")
    assert told in str(wrong) and "t2i-message" in str(wrong)


def test_bodies_that_are_too_large_are_refused(page):
    import httpx

    answer = httpx.post(f"{page[0]}/gradio_api/queue/join", content=b"x" * 1_000_001)
    assert answer.status_code == 413
    assert httpx.get(page[0]).headers["content-security-policy"].startswith("default-src 'self'")


def test_too_many_requests_are_told_when_to_come_again(runs):
    with served(run_dir=str(runs / "attngan"), requests_per_minute=2) as (url, _):
        visitor = client(url)
        answers = [visitor.predict("a red flower", seed, 1.0, api_name="/draw") for seed in range(3)]
    assert "t2i-message" not in str(answers[1]) and "more than 2 requests in a minute: wait" in str(answers[2])


@pytest.mark.slow
def test_ctrl_c_stops_it(runs):
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), f"--run_dir={runs / 'attngan'}", "--port=0"]
    # A shell in the background has its children ignore Ctrl-C.
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, **pipes, **hears) as running:
        try:
            lines = [running.stdout.readline() for _ in range(3)]
            assert lines[-1] == "stop with Ctrl-C\n"
            running.send_signal(signal.SIGINT)
            out, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert out == "stopped\n" and running.returncode == 0 and "Traceback" not in errors


def test_a_taken_port_gives_way_to_the_next():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port < demo.free_port("127.0.0.1", port) < port + demo.PORTS
    assert demo.free_port("127.0.0.1", 0) > 0
    with pytest.raises(UserError, match="--host=no.such.address.invalid: no such address"):
        demo.free_port("no.such.address.invalid", 7860)
    with pytest.raises(UserError, match="--host=192.0.2.1 --port=7860: cannot listen there"):
        demo.free_port("192.0.2.1", 7860)
    with pytest.raises(UserError, match="--port=65536: 65535 is the last port"):
        demo.free_port("127.0.0.1", 65536)


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert cli.demo([f"--run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err == "error: t2i-demo needs gradio: pip install -e '.[web]'\n"
