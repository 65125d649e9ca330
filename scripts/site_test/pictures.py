"""Pictures of the matrix and of a probe's page, for the README: 1200 pixels wide, as they are in the light."""

import base64
import sys
import urllib.parse
from pathlib import Path

from palette import reduced
from webdriver import Browser, Driver

LARGEST = 150_000

# A name, the page, and how much of it from its top.
PICTURES = [
    ("matrix", "matrix.html#suite=copy", 900),
    ("probe", "probe/copy/mmap-over.html", 1100),
]


def main(site, folder):
    driver = Driver()
    try:
        browser = Browser(driver)
        browser.colours("light")
        for name, page, height in PICTURES:
            if not (site / page.partition("#")[0]).is_file():
                sys.exit(f"{site / page} is not there, so there can be no picture of it: see PICTURES in {__file__}")
            browser.size(1200, height)
            browser.open(f"file://{urllib.parse.quote(str(site))}/{page}")
            clip = {"x": 0, "y": 0, "width": 1200, "height": height, "scale": 1}
            png = reduced(base64.b64decode(browser.screenshot(clip)))
            if len(png) > LARGEST:
                sys.exit(f"{name}.png has {len(png)} bytes, more than {LARGEST}: show less of {page}")
            (folder / f"{name}.png").write_bytes(png)
            print(f"{folder / name}.png: {len(png)} bytes")
        browser.close()
    finally:
        driver.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
