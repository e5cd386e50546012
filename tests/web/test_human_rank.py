"""The page of t2i-human-rank: the verb runs in a process of its own, asked over HTTP and by a real headless browser."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from t2i_tf import cli
from t2i_tf.evaluation.human_rank import Method, Sheets, Vote, Votes

pytest.importorskip("starlette", reason="the page needs starlette: pip install -e '.[web]'")
pytest.importorskip("uvicorn", reason="the page needs uvicorn: pip install -e '.[web]'")

ROOT = Path(__file__).parents[2]
METHODS = ("attngan-oracle", "stackgan-oracle", "gan-oracle")
HOSTILE = "<img src=x onerror=\"document.title='hurt'\">"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]


def make_sheets(folder, count):
    """Sheets of three methods, each with a colour of its own."""
    (folder / "pictures").mkdir(parents=True)
    names = [[f"{sheet:03d}{os.urandom(5).hex()}" for _ in METHODS] for sheet in range(count)]
    for row in names:
        for name, color in zip(row, ("#c03030", "#30a050", "#3050c0"), strict=True):
            Image.new("RGB", (64, 64), color).save(folder / "pictures" / f"{name}.png")
    methods = [Method(name, str(folder.parent / name)) for name in METHODS]
    captions = [HOSTILE if sheet == 1 else f"flower number {sheet}" for sheet in range(count)]
    sheets = Sheets(folder, 5, "blossoms-oracle", "test", 1, methods, captions, names, {"seed": 5})
    sheets.write(folder)
    return sheets


class Server:
    """The verb in a process of its own."""

    def __init__(self, folder, port=0):
        program = [sys.executable, ROOT / "tools" / "human_rank.py", f"--sheets={folder}", f"--port={port}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment)
        self.url = re.search(r"http://\S+/", self.process.stdout.readline())[0]
        self.port = urllib.parse.urlsplit(self.url).port

    def stop(self, kind=signal.SIGINT):
        self.process.send_signal(kind)
        output, _ = self.process.communicate(timeout=30)
        return output

    def get(self, path, **query):
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return answer.read(), dict(answer.headers)

    def sheet(self, rater, **query):
        return json.loads(self.get("sheet", rater=rater, **query)[0])

    def vote(self, rater, sheet, ranking, kind="application/json"):
        body = json.dumps({"rater": rater, "sheet": sheet, "ranking": ranking}).encode()
        request = urllib.request.Request(f"{self.url}vote", body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def refused(self, ask):
        with pytest.raises(urllib.error.HTTPError) as error:
            ask()
        assert error.value.code == 400
        return json.loads(error.value.read())["error"]


@contextlib.contextmanager
def serving(folder, port=0):
    server = Server(folder, port)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture
def sheets(tmp_path):
    return make_sheets(tmp_path / "sheets", 4)


@pytest.fixture
def server(sheets):
    with serving(sheets.folder) as started:
        yield started


def ranked(sheets, sheet, pictures):
    """The methods behind pictures."""
    return [METHODS[sheets.pictures[sheet].index(picture)] for picture in pictures]


def votes(sheets):
    return Votes(sheets.folder / "votes.sqlite")


# Over HTTP.


def test_nothing_that_is_sent_tells_a_method(sheets, server):
    first = server.get("sheet", rater="anna")
    names = json.loads(first[0])["pictures"]
    told = [server.get(""), first, *(server.get(f"pictures/{name}") for name in names)]
    for body, headers in told:
        text = body.decode("latin-1") + json.dumps(headers)
        assert not any(secret in text for secret in (*METHODS, "oracle", "seed"))
        assert not {"last-modified", "etag"} & {name.lower() for name in headers}


def test_the_order_is_the_raters_own_and_stays_until_it_is_ranked(sheets, server):
    orders = {rater: server.sheet(rater)["pictures"] for rater in (f"r{number}" for number in range(20))}
    assert len({tuple(order) for order in orders.values()}) > 3
    assert all(server.sheet(rater)["pictures"] == order for rater, order in orders.items())
    wanted = sorted(orders["r0"])
    assert server.vote("R0 ", 0, wanted) == {"kept": True}
    assert server.sheet("r0") == {**server.sheet("r0", sheet=1), "sheet": 1, "done": 1, "ranked": False}
    again = server.sheet("r0", sheet=0)
    assert (again["pictures"], again["ranked"], again["sheets"]) == (wanted, True, 4)
    (kept,) = votes(sheets).all()
    assert kept == Vote("r0", 0, ranked(sheets, 0, wanted), ranked(sheets, 0, orders["r0"]))


def test_two_raters_at_once_lose_nothing(tmp_path):
    sheets, errors = make_sheets(tmp_path / "sheets", 40), []

    def rate(server, rater):
        try:
            while (found := server.sheet(rater))["sheet"] is not None:
                server.vote(rater, found["sheet"], found["pictures"])
        except BaseException as error:
            errors.append(error)

    with serving(sheets.folder) as server:
        threads = [threading.Thread(target=rate, args=(server, rater)) for rater in ("anna", "ben")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.stop().endswith("80 votes in " + str(sheets.folder / "votes.sqlite") + "\n")
    assert not errors
    kept = {(vote.rater, vote.sheet): vote for vote in votes(sheets).all()}
    assert len(kept) == 80 and all(vote.ranking == vote.shown for vote in kept.values())


def test_no_vote_that_was_answered_is_lost_when_the_server_is_killed(tmp_path):
    sheets, answered = make_sheets(tmp_path / "sheets", 400), []
    enough = threading.Event()

    def rate(server):
        with contextlib.suppress(OSError, ValueError):  # the server dies while it is asked
            for sheet, pictures in enumerate(sheets.pictures):
                server.vote("anna", sheet, pictures)
                answered.append(sheet)
                if len(answered) == 25:
                    enough.set()

    with serving(sheets.folder) as server:
        thread = threading.Thread(target=rate, args=(server,))
        thread.start()
        assert enough.wait(60)
        server.stop(signal.SIGKILL)
        thread.join()
    with serving(sheets.folder) as server:
        kept = votes(sheets).of("anna")
        assert 25 <= len(answered) < 400 and set(answered) <= set(kept)
        assert all(ranking == list(METHODS) for ranking in kept.values())
        assert server.sheet("anna")["sheet"] == len(kept) <= len(answered) + 1


def test_what_makes_no_sense_is_refused_in_a_line_and_keeps_nothing(sheets, server):
    right = sheets.pictures[0]
    assert server.refused(lambda: server.sheet("  ")) == "a rater's name has 1 to 60 characters"
    for number in ("4", "-1", "x", "9" * 5000, "²"):
        assert server.refused(lambda number=number: server.sheet("anna", sheet=number)).startswith("there is no sheet")
    for number in (4, -1, "0", None, True, 0.0):
        assert "there is no sheet" in server.refused(lambda number=number: server.vote("anna", number, right))
    for ranking in (right[:2], [*right, right[0]], [right[0]] * 3, sheets.pictures[1], "abc", None, {}, [1, 2, 3]):
        told = server.refused(lambda ranking=ranking: server.vote("anna", 0, ranking))
        assert told == "a vote names each picture of its sheet once"
    assert server.refused(lambda: server.vote("anna", 0, right, kind="text/plain")) == "a vote is JSON"
    for body in (b"{", b"[]", b"{}", b"\xff", b"1"):
        request = urllib.request.Request(f"{server.url}vote", body, {"Content-Type": "application/json"})
        told = server.refused(lambda request=request: urllib.request.urlopen(request))
        assert told == "a vote has rater, sheet and ranking"
    assert not votes(sheets).all()


@pytest.mark.parametrize("name", ["nothing", "..%2Fsheets.json", "../sheets.json", "..%2F..%2Fsheets.json"])
def test_no_other_file_can_be_had(server, name):
    with pytest.raises(urllib.error.HTTPError) as error:
        server.get(f"pictures/{name}")
    assert error.value.code == 404


def test_a_port_that_is_taken_is_told_in_a_line(sheets, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.human_rank([f"--sheets={sheets.folder}", f"--port={taken.getsockname()[1]}"]) == 2
    told = capsys.readouterr().err
    assert cli.human_rank([f"--sheets={sheets.folder}", "--port=70000"]) == 2
    assert "port must be 0-65535" in capsys.readouterr().err
    assert "Address already in use: give another, --port=0 takes a free one" in told and told.count("\n") == 1


def test_the_missing_extra_is_told_before_anything_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert cli.human_rank([f"--sheets={tmp_path / 'sheets'}", "--run_dirs=a,b"]) == 2
    assert capsys.readouterr().err == "error: the page needs starlette and uvicorn: pip install -e '.[web]'\n"


# By a browser.


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        path = next(filter(None, map(shutil.which, CHROMIUM)), own if own.exists() else None)
        if path is None:
            pytest.skip(f"no {', '.join(CHROMIUM)} here, nor playwright's own (playwright install chromium)")
        opened = started.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page in a window of its own; what went wrong in it, or left for another host, fails the test."""
    contexts, wrong = [], []

    def opened(**context):
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **context}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: r.url.startswith((server.url, "data:")) or wrong.append(r.url))
        page.goto(server.url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def begin(page, name):
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start").click()
    ready(page, 1)


def ready(page, number, count=4):
    """Waits until the pictures of a sheet can be ranked."""
    page.locator("#where", has_text=re.compile(f"^Caption {number} of {count}")).wait_for()
    page.locator("#submit:enabled").wait_for()


def order(page):
    return page.locator("#pictures li").evaluate_all("cards => cards.map(card => card.dataset.picture)")


def badges(page):
    return page.locator("#pictures .rank").all_inner_texts()


def test_a_rater_ranks_reloads_goes_on_and_changes_an_answer(sheets, visit):
    page = visit()
    begin(page, "Anna")
    a, b, c = order(page)
    assert page.locator("#pictures li:focus").get_attribute("data-picture") == a
    page.keyboard.press("ArrowRight")
    assert order(page) == [b, a, c] and badges(page) == ["1", "2", "3"]
    page.keyboard.press("3")
    assert order(page) == [b, c, a]
    assert page.locator("#pictures li:focus").get_attribute("data-picture") == a, "the picture moved is still chosen"
    assert page.locator("#pictures li:focus").get_attribute("aria-label") == "Picture ranked 3 of 3"
    page.keyboard.press("ArrowRight")  # it is the last already
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowLeft")
    assert order(page) == [c, b, a]
    page.keyboard.press("Enter")
    ready(page, 2)
    assert votes(sheets).of("anna") == {0: ranked(sheets, 0, [c, b, a])}

    page.reload()
    ready(page, 2)
    assert page.locator("#progress").evaluate("bar => [bar.value, bar.max]") == [1, 4]
    second = order(page)
    page.keyboard.press("Enter")
    ready(page, 3)

    page.keyboard.press("Backspace")
    ready(page, 2)
    assert order(page) == second and page.locator("#where").inner_text().endswith("ranked before")
    page.get_by_role("button", name="Back").click()
    ready(page, 1)
    assert order(page) == [c, b, a]
    page.keyboard.press("2")
    page.get_by_role("button", name="Keep this order").click()
    ready(page, 3)
    assert votes(sheets).of("anna") == {0: ranked(sheets, 0, [b, c, a]), 1: ranked(sheets, 1, second)}


def test_another_window_goes_on_by_the_name_alone_to_the_end(sheets, visit):
    first = visit()
    begin(first, "Ben")
    for number in (1, 2, 3):
        first.keyboard.press("Enter")
        ready(first, number + 1)
    other = visit()
    other.get_by_label("Your name").fill(" ben ")
    other.keyboard.press("Enter")
    ready(other, 4)
    other.keyboard.press("Enter")
    other.get_by_text("All done. Thank you!").wait_for()
    other.keyboard.press("Enter")  # nothing is left to be kept
    other.get_by_role("button", name="Back to the last one").click()
    ready(other, 4)
    assert len(votes(sheets).of("ben")) == 4
    other.get_by_role("button", name="not you?").click()
    begin(other, "Cleo")


def test_pictures_are_dragged(sheets, visit):
    page = visit()
    begin(page, "Anna")
    a, b, c = order(page)
    boxes = [page.locator("#pictures li").nth(number).bounding_box() for number in range(3)]
    middles = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3) for box in boxes]
    page.mouse.move(*middles[2])
    page.mouse.down()
    page.mouse.move(*middles[1], steps=5)
    assert order(page) == [a, c, b]
    page.mouse.move(*middles[0], steps=5)
    page.mouse.up()
    assert order(page) == [c, a, b]
    page.mouse.move(*middles[1])  # the button is up: nothing follows
    page.get_by_role("button", name="Keep this order").click()
    ready(page, 2)
    assert votes(sheets).of("anna") == {0: ranked(sheets, 0, [c, a, b])}


def test_a_phone_has_buttons_and_needs_no_scrolling_sideways(sheets, visit):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    begin(page, "Anna")
    a, b, c = order(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Better: from rank 3 to 2").tap()
    page.get_by_role("button", name="Worse: from rank 1 to 2").tap()
    assert order(page) == [c, a, b]
    assert page.get_by_role("button", name=re.compile("Better: from rank 1 ")).is_disabled()
    assert page.get_by_role("button", name=re.compile("Worse: from rank 3 ")).is_disabled()
    box = page.locator("#pictures .move").first.bounding_box()
    assert min(box["width"], box["height"]) > 43.9  # a finger, less rounding
    page.get_by_role("button", name="Keep this order").tap()
    ready(page, 2)
    assert votes(sheets).of("anna") == {0: ranked(sheets, 0, [c, a, b])}


def test_two_windows_at_once_lose_nothing(sheets, visit):
    pages = {"anna": visit(), "ben": visit()}
    for name, page in pages.items():
        begin(page, name)
    chosen = {name: {} for name in pages}
    for number in range(1, 5):
        for page in pages.values():
            page.keyboard.press("ArrowRight")
        for name, page in pages.items():
            chosen[name][number - 1] = ranked(sheets, number - 1, order(page))
            page.keyboard.press("Enter")
        for page in pages.values():
            if number < 4:
                ready(page, number + 1)
            else:
                page.get_by_text("All done. Thank you!").wait_for()
    assert {name: votes(sheets).of(name) for name in pages} == chosen


def test_names_and_captions_are_text_and_nothing_else(sheets, visit):
    page = visit()
    begin(page, HOSTILE[:60])
    assert HOSTILE[:60] in page.locator("#who").inner_text()
    page.keyboard.press("Enter")
    ready(page, 2)
    assert page.locator("#caption").inner_text() == f"“{HOSTILE}”"
    assert page.locator("img").count() == 3 and "hurt" not in page.title()


def test_a_server_that_is_gone_is_told_and_the_order_kept_for_when_it_is_back(sheets, visit, server):
    page = visit()
    begin(page, "Anna")
    a, b, c = order(page)
    page.keyboard.press("ArrowRight")
    server.stop(signal.SIGKILL)
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    assert order(page) == [b, a, c] and not votes(sheets).all()
    with serving(sheets.folder, server.port):
        page.keyboard.press("Enter")
        ready(page, 2)
        assert page.get_by_role("alert").inner_text() == ""
        assert votes(sheets).of("anna") == {0: ranked(sheets, 0, [b, a, c])}


def test_a_key_that_is_held_down_ranks_one_sheet(sheets, visit):
    page = visit()
    begin(page, "Anna")
    page.keyboard.down("Enter")
    ready(page, 2)
    page.keyboard.down("Enter")  # repeats, since it is still down
    page.wait_for_timeout(500)
    assert list(votes(sheets).of("anna")) == [0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_either_scheme(visit, scheme):
    """The contrast of WCAG AA, 4.5 to 1."""
    page = visit(color_scheme=scheme)
    begin(page, "Anna")

    def luminance(color):
        shares = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
        red, green, blue = (s / 12.92 if s <= 0.03928 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    paper = luminance(page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))
    assert (paper < 0.1) == (scheme == "dark")
    for text in ("#caption", "#question", "#where", ".keys"):
        ink = luminance(page.locator(text).evaluate("e => getComputedStyle(e).color"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, text
    for badge in ("#pictures .rank >> nth=0", "#pictures .rank >> nth=1", "#submit"):
        both = page.locator(badge).evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
        ink, ground = map(luminance, both)
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, badge
