"""Pages in a real browser: type, see, hover, slide, download; on a phone, in the dark; and what visitors may try.

Left out where no Chromium or Chrome is installed.
"""

import html
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from t2i_tf import inference
from web.test_demo import served

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome is installed: apt install chromium")

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NASTY = (
    """<script>document.title="hacked"</script><img src=x onerror="document.title='hacked'"> red ${1+1} {{value}} 🌼"""
)


@pytest.fixture(scope="module")
def url(runs):
    with served(run_dir=str(runs / "attngan"), requests_per_minute=1000) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as program:
        sync_api.expect.set_options(timeout=60_000)  # machines that test are busy
        browser = program.chromium.launch(executable_path=PROGRAM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Opens pages that fail the test when a script fails or another machine is asked."""
    wrong, contexts = [], []

    def open_page(address, **view):
        contexts.append(browser.new_context(**view))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        own = (address, "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def draw(page, caption, seed=None):
    page.get_by_label("Caption").fill(caption)
    if seed is not None:
        page.get_by_label("Seed").first.fill(str(seed))
    page.get_by_role("button", name="Draw", exact=True).click()


def drawn(page, caption):
    """Waits for the picture of a caption."""
    hero = page.locator(".t2i-hero .t2i-picture")
    sync_api.expect(hero).to_have_attribute("alt", caption)
    return hero


def downloaded(page):
    with page.expect_download() as download:
        page.get_by_role("link", name="Download PNG").click()
    return download.value.suggested_filename, np.asarray(Image.open(download.value.path()))


def lit(page):
    """Numbers of the words whose maps are seen."""
    shown = page.locator(".t2i-map.t2i-on")
    return {shown.nth(number).get_attribute("data-word") for number in range(shown.count())}


def test_type_see_hover_download_and_come_back(url, visit, runs):
    page = visit(url)
    draw(page, "a red zorgly flower", 3)
    drawn(page, "a red zorgly flower")
    assert page.locator(".t2i-scales figcaption").all_inner_texts() == ["16 px", "32 px"]
    assert page.locator(".t2i-unknown").all_inner_texts() == ["zorgly"]

    words = page.locator(".t2i-word")
    assert words.all_inner_texts() == ["a", "red", "flower"]
    assert lit(page) == set()
    words.nth(1).hover()
    shown = page.locator('.t2i-hero .t2i-map[data-word="1"]')
    sync_api.expect(shown).to_have_css("opacity", "1")
    assert lit(page) == {"1"}
    page.mouse.move(0, 0)
    sync_api.expect(shown).to_have_css("opacity", "0")
    words.nth(0).focus()
    page.keyboard.press("Tab")
    assert lit(page) == {"1"}, "with a keyboard too"

    name, picture = downloaded(page)
    live = inference.load(runs / "attngan").generate(["a red zorgly flower"], [3])[-1][0]
    assert name == "a-red-zorgly-flower-seed3.png"
    np.testing.assert_array_equal(picture, live)
    page.get_by_text("The command that makes it again").click()
    assert "--caption='a red zorgly flower' --seeds=3" in page.locator(".t2i-code code").inner_text()
    page.get_by_role("button", name="Copy").click()
    sync_api.expect(page.locator(".t2i-copy")).to_have_text(re.compile("Copied|Selected"))

    draw(page, "a blue flower", 4)
    drawn(page, "a blue flower")
    tiles = page.locator(".t2i-tile")
    sync_api.expect(tiles).to_have_count(2)
    tiles.nth(1).click()
    drawn(page, "a red zorgly flower")
    sync_api.expect(page.get_by_label("Caption")).to_have_value("a red zorgly flower")
    np.testing.assert_array_equal(downloaded(page)[1], live)

    page.get_by_role("button", name="Another seed").click()
    sync_api.expect(tiles).to_have_count(3)
    other = visit(url)
    sync_api.expect(other.locator(".t2i-empty").first).to_be_visible()
    assert other.locator(".t2i-tile").count() == 0, "another visitor's gallery is empty"


def test_slide_between_two_captions(url, visit, runs):
    page = visit(url)
    page.get_by_role("tab", name="Between two captions").click()
    page.get_by_label("From").fill("a red flower")
    page.get_by_label("To").fill("a blue flower")
    page.get_by_role("button", name="Draw the way").click()
    slider = page.locator(".t2i-slider")
    slider.wait_for()
    live = inference.load(runs / "attngan").interpolate_text("a red flower", "a blue flower", 13, [0])[0]
    np.testing.assert_array_equal(downloaded(page)[1], live[0])
    slider.fill("12")
    assert page.locator(".t2i-step").inner_text() == "13"
    assert page.locator(".t2i-way .t2i-on").get_attribute("data-step") == "12"
    np.testing.assert_array_equal(downloaded(page)[1], live[12])


def test_what_visitors_may_type(url, visit):
    page = visit(url)
    told = page.locator(".t2i-message")
    for caption, message in [("", "is empty"), ("x" * 10_000, "has 10,000 characters"), ("🌼", "has no word")]:
        draw(page, caption)
        sync_api.expect(told).to_contain_text(message)
    draw(page, NASTY)
    drawn(page, NASTY)
    assert told.count() == 0 or not told.is_visible()
    assert page.locator(".t2i-caption").inner_text() == NASTY
    assert "hacked" not in page.title() and page.locator(".t2i-result script").count() == 0


@pytest.mark.parametrize("scheme, darkest, brightest", [("dark", 0, 60), ("light", 200, 255)])
def test_on_a_phone_nothing_is_wider_than_it_and_colours_follow(url, visit, scheme, darkest, brightest):
    page = visit(url, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    draw(page, "a red flower with petals " + "x" * 200)
    drawn(page, "a red flower with petals " + "x" * 200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".t2i-word").nth(1).tap()
    assert lit(page) == {"1"}
    corner = np.asarray(Image.open(io.BytesIO(page.screenshot())))[-1, 0, :3]
    assert darkest <= corner.mean() <= brightest


def test_a_picture_is_described(runs, visit, tmp_path):
    coarse = Image.fromarray(np.random.default_rng(3).uniform(0, 255, [4, 4, 3]).astype(np.uint8))
    coarse.resize((32, 32), Image.Resampling.BICUBIC).save(tmp_path / "my <b>picture.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    live = inference.load(runs / "show_attend_tell").describe([tmp_path / "my <b>picture.png"])
    with served(run_dir=str(runs / "show_attend_tell"), upload_megabytes=1) as (url, _):
        page = visit(url)
        page.set_input_files("input[type=file]", tmp_path / "broken.png")
        sync_api.expect(page.locator(".t2i-message:visible")).to_contain_text("This is no picture")
        page.set_input_files("input[type=file]", tmp_path / "my <b>picture.png")
        caption = page.locator(".t2i-caption")
        sync_api.expect(caption).to_have_text(live.captions[0])
        command = html.unescape(page.locator(".t2i-code code").inner_html())
        assert "--images='my <b>picture.png'" in command
        words = page.locator(".t2i-word")
        words.first.hover()
        assert lit(page) == {"0"}
        page.mouse.move(0, 0)
        page.get_by_role("button", name="Play").click()
        sync_api.expect(words.nth(1)).to_have_class(re.compile("t2i-on"))
        assert caption.inner_text() == live.captions[0]


TOO_LARGE = "The picture has more than 1 MB, which is the most: make it smaller, or save it as JPEG."
DROP = """(area, size) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(size)], "large.png", { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    area.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  }
}"""
COPY = """async () => {
  const canvas = new OffscreenCanvas(1000, 1000);
  const pixels = new ImageData(1000, 1000);
  for (let row = 0; row < 1000; row += 10) crypto.getRandomValues(pixels.data.subarray(4000 * row, 4000 * row + 40000));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  await navigator.clipboard.write([new ClipboardItem({ "image/png": await canvas.convertToBlob() })]);
}"""


def test_a_picture_that_is_too_large_is_told_in_one_line_and_not_sent(runs, visit, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "large.png").write_bytes(b"x" * 1_000_001)
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "small.png").read_bytes()[:60])
    with served(run_dir=str(runs / "show_attend_tell"), upload_megabytes=1) as (url, _):
        page = visit(url, permissions=["clipboard-read", "clipboard-write"])
        told, sent = page.locator(".t2i-message:visible"), []
        page.on("request", lambda request: sent.append(request.url) if "/upload" in request.url else None)

        def choose(name):
            page.set_input_files("input[type=file]", tmp_path / name)

        sync_api.expect(page.locator(".t2i-empty")).to_be_visible()
        assert told.count() == 0
        choose("broken.png")
        sync_api.expect(told).to_contain_text("This is no picture that can be read")
        asked = len(sent)
        choose("large.png")
        sync_api.expect(told).to_have_text(TOO_LARGE)
        choose("cut.png")
        sync_api.expect(told).to_contain_text("truncated")  # the answer is here, and the page at rest
        assert asked > 0 and len(sent) == 2 * asked, "the large one was not sent"
        page.locator(".t2i-drop button").first.evaluate(DROP, 1_000_001)
        sync_api.expect(told).to_have_text(TOO_LARGE)
        choose("small.png")
        sync_api.expect(page.locator(".t2i-caption")).to_be_visible()
        sync_api.expect(told).to_have_count(0)
        page.evaluate(COPY)
        page.get_by_label("Paste from clipboard").evaluate("button => button.click()")
        sync_api.expect(told).to_have_text(TOO_LARGE)
        assert page.get_by_test_id("toast-body").count() == 0 and len(sent) == 3 * asked
