"""The page on which people rank pictures: one HTML file, four addresses, served by starlette and uvicorn.

The browser gets captions and the secret names of picture files, in an order of its own for each rater and sheet; which
method is behind a name is known to the server alone. A vote is on disk before it is answered.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from pathlib import Path

from t2i_tf.errors import UserError
from t2i_tf.evaluation.human_rank import PICTURES, VOTES, Sheets, Vote, Votes, rater_name

PAGE = Path(__file__).with_name("human_rank.html")
NO_STORE = {"Cache-Control": "no-store"}
"""What is asked for anew each time."""


def check_installed() -> None:
    """Raises UserError when what serves the page is missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UserError("the page needs starlette and uvicorn: pip install -e '.[web]'") from None


class Ranking:
    """What raters see and say of a set of sheets; knows no HTTP. Raises UserError for what makes no sense."""

    def __init__(self, sheets: Sheets, votes: Votes):
        self.sheets, self.votes = sheets, votes
        self._known = {name for names in sheets.pictures for name in names}

    def sheet(self, rater: str, sheet: int | None) -> dict:
        """A sheet as a rater sees it, by default the first without a vote; its number is None when all have one.

        `pictures` are in the order to show: as drawn for this rater, or as ranked before, the best first.
        """
        rater = rater_name(rater)
        ranked, count = self.votes.of(rater), len(self.sheets.captions)
        if sheet is None:
            sheet = next((number for number in range(count) if number not in ranked), None)
        found = {"sheet": sheet, "sheets": count, "done": len(ranked)}
        if sheet is None:
            return found
        self._check_number(sheet)
        names = [method.name for method in self.sheets.methods]
        order = [names.index(name) for name in ranked[sheet]] if sheet in ranked else self.sheets.shown(rater, sheet)
        pictures = [self.sheets.pictures[sheet][method] for method in order]
        return {**found, "caption": self.sheets.captions[sheet], "pictures": pictures, "ranked": sheet in ranked}

    def vote(self, rater: str, sheet: int, pictures: list[str]) -> None:
        """Keeps the order of a sheet's pictures, the best first."""
        rater = rater_name(rater)
        self._check_number(sheet)
        here = self.sheets.pictures[sheet]
        if not isinstance(pictures, list) or sorted(map(str, pictures)) != sorted(here):
            raise UserError("a vote names each picture of its sheet once")
        names = [method.name for method in self.sheets.methods]
        shown = [names[method] for method in self.sheets.shown(rater, sheet)]
        self.votes.cast(Vote(rater, sheet, [names[here.index(str(picture))] for picture in pictures], shown))

    def picture(self, name: str) -> bytes | None:
        """PNG; None for a name that is on no sheet."""
        return (self.sheets.folder / PICTURES / f"{name}.png").read_bytes() if name in self._known else None

    def _check_number(self, sheet: int) -> None:
        if type(sheet) is not int or not 0 <= sheet < len(self.sheets.captions):
            raise UserError(f"there is no sheet {sheet}")


def application(ranking: Ranking):
    """The starlette application."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    def page(request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=NO_STORE)

    def sheet(request: Request) -> Response:
        asked = request.query_params.get("sheet")
        number = int(asked) if asked and re.fullmatch("[0-9]{1,9}", asked) else asked
        return JSONResponse(ranking.sheet(request.query_params.get("rater", ""), number), headers=NO_STORE)

    async def vote(request: Request) -> Response:
        # A page of another site can send no JSON without being asked for leave.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise UserError("a vote is JSON")
        try:
            found = json.loads(await request.body())
            rater, number, pictures = str(found["rater"]), found["sheet"], found["ranking"]
        except (ValueError, KeyError, TypeError):
            raise UserError("a vote has rater, sheet and ranking") from None
        await run_in_threadpool(ranking.vote, rater, number, pictures)
        return JSONResponse({"kept": True}, headers=NO_STORE)

    def picture(request: Request) -> Response:
        content = ranking.picture(request.path_params["name"])
        if content is None:
            return Response("no such picture", 404)
        # Without the date that a file would have: it would tell pictures of one method from those of another.
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400, headers=NO_STORE)

    routes = [
        Route("/", page),
        Route("/sheet", sheet),
        Route("/vote", vote, methods=["POST"]),
        Route("/pictures/{name}", picture),
    ]
    return Starlette(routes=routes, exception_handlers={UserError: refused})


def serve(sheets: Sheets, host: str, port: int) -> None:
    """Shows the page until Ctrl-C. Raises UserError when the port is taken or the address is not this machine's."""
    check_installed()
    import uvicorn

    votes = Votes(sheets.folder / VOTES)
    try:
        listening = socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        told = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        raise UserError(f"--host={host} --port={port}: {told}: give another, --port=0 takes a free one") from None
    with listening:
        shown = "127.0.0.1" if host in ("0.0.0.0", "") else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        print(f"{len(sheets.captions)} sheets at {address} until Ctrl-C; every vote is kept at once")
        print(f"then: t2i-human-rank --sheets={sheets.folder} --report", flush=True)
        config = uvicorn.Config(application(Ranking(sheets, votes)), log_level="warning")
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    print(f"{len(votes.all())} votes in {votes.path}")
