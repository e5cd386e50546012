"""`t2i-demo`: a page of a trained run, for browsers on this machine or, when asked, on its network."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from t2i_tf.config import DemoConfig
from t2i_tf.errors import UserError

PORTS = 100
"""So many are tried when the one asked for is taken."""

AT_ONCE = 4
"""Requests that are worked on at a time; others wait in a queue."""

QUEUE = 64
"""Requests that may wait."""

FORGET_SECONDS = 3600
"""Files of visitors are removed at this age."""

_HERE = Path(__file__).parent


def serve(options: DemoConfig, say: Callable[[str], None], stop: threading.Event | None = None) -> None:
    """Serves the page until Ctrl-C, or until `stop` is set; says where it is. Raises UserError."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError("t2i-demo needs gradio: pip install -e '.[web]'") from None
    from t2i_tf.web import models

    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio asks itself whether it answers
    shown = models.load(options)
    shown.prepare()
    page, launch = built(shown, options)
    port = free_port(options.host, options.port)
    page.launch(server_name=options.host, server_port=port, **launch)
    try:
        name = "localhost" if options.host in ("127.0.0.1", "0.0.0.0") else options.host
        say(f"{options.run_dir or options.saved_model}: {page.title}")
        say(
            f"open http://{name}:{port}" + (f" (port {options.port} is taken)" if options.port not in (0, port) else "")
        )
        if options.host not in ("127.0.0.1", "localhost", "::1"):
            say(f"--host={options.host}: everybody who reaches this machine can use the page")
        say("stop with Ctrl-C")
        (stop or threading.Event()).wait()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        page.close(verbose=False)


def built(shown, options: DemoConfig) -> tuple:
    """The page of a Painter or a Captioner, as gradio's Blocks, and how to launch it."""
    import gradio as gr
    from starlette.middleware import Middleware

    from t2i_tf.web import captioning_page, drawing_page, limits, models

    visits = limits.Visits(options.requests_per_minute)
    kind = drawing_page if isinstance(shown, models.Painter) else captioning_page
    with gr.Blocks(title=shown.about, analytics_enabled=False, delete_cache=(FORGET_SECONDS, FORGET_SECONDS)) as page:
        kind.build(shown, options, visits)
    page.queue(max_size=QUEUE, default_concurrency_limit=AT_ONCE)
    sans, mono = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
    upload_bytes = options.upload_megabytes * 1_000_000
    return page, {
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "max_file_size": upload_bytes,
        "app_kwargs": {"middleware": [Middleware(limits.Guard, visits=visits, upload_bytes=upload_bytes)]},
        "theme": gr.themes.Base(
            primary_hue="stone",
            neutral_hue="stone",
            radius_size="lg",
            font=[gr.themes.utils.fonts.LocalFont("IBM Plex Sans"), *sans],
            font_mono=[gr.themes.utils.fonts.LocalFont("IBM Plex Mono"), *mono],
        ),
        "css": (_HERE / "page.css").read_text(encoding="utf-8"),
        "head": f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>",
    }


def free_port(host: str, port: int) -> int:
    """The first port from `port` on at which `host` can listen; any for 0. Raises UserError."""
    if port > 65535:
        raise UserError(f"--port={port}: 65535 is the last port")
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        raise UserError(f"--host={host}: no such address") from None
    for wanted in [0] if port == 0 else range(port, min(port + PORTS, 65536)):
        try:
            with socket.create_server((host, wanted), family=family) as found:
                return found.getsockname()[1]
        except OSError as error:
            reason = os.strerror(error.errno)
            if error.errno != errno.EADDRINUSE:
                break
    raise UserError(f"--host={host} --port={port}: cannot listen there ({reason}): give another")
