"""Pictures of a page that runs, made by a browser: on a desk in light, on a phone in dark.

    t2i-demo --run_dir=R
    python experiments/page_pictures.py http://localhost:7860 OUT "a caption" "another caption"
    python experiments/page_pictures.py http://localhost:7860 OUT picture.png            (of a captioner)

It needs playwright and an installed Chromium or Chrome.
"""

import argparse
import shutil
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VIEWS = {
    "desk_light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone_dark": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "dark",
        "device_scale_factor": 2,
        "has_touch": True,
    },
}


def look(page, given):
    """Asks for what was given, and hovers a word."""
    if Path(given[0]).is_file():
        page.set_input_files("input[type=file]", given[0])
    else:
        box = page.get_by_label("Caption")
        for caption in [*given[1:], given[0]]:
            box.fill(caption)
            page.get_by_role("button", name="Draw", exact=True).click()
            page.locator(f'.t2i-hero img[alt="{caption}"]').wait_for()
    page.locator(".t2i-hero .t2i-picture").wait_for()
    words = page.locator(".t2i-word")
    if words.count():
        chosen = words.nth(min(4, words.count() - 1))
        chosen.focus()
        chosen.hover()
    page.wait_for_timeout(600)


def main(url, out, given):
    from playwright.sync_api import sync_playwright  # here, so that --help needs no browser

    program = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, view in VIEWS.items():
            page = browser.new_context(**view).new_page()
            page.goto(url)
            look(page, given)
            page.screenshot(path=str(Path(out) / f"{name}.png"), full_page=True)
            print(Path(out) / f"{name}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("out", metavar="OUT", help="a folder that is there")
    parser.add_argument("given", nargs="+", help="captions, or the file of a picture; the first is shown")
    main(**vars(parser.parse_args()))
