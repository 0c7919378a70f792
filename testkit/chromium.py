"""Headless Chromium from Debian's packages: opens a page, reads what is on it, and takes its picture."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

HOW: Final = "chromium and chromedriver are needed (Debian: apt install chromium chromium-driver)"
WIDE, NARROW = 1280, 400
"""CSS pixels of a desk's screen and of a telephone's."""
_HEIGHT: Final = 900


def chrome_there() -> bool:
    """Whether there is a browser to look with."""
    return shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


class Chrome:
    """One browser window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, url: str, width: int = WIDE) -> None:
        """Show a page in a window of some width, with nothing left of what the page before it said."""
        # A window cannot be made narrower than 500 pixels, what it shows can.
        metrics = {"width": width, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.said()
        self._driver.get(url)

    def dark(self, wanted: bool) -> None:
        """Whether pages are told that the person prefers a dark screen."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def said(self) -> list[str]:
        """What the console has said since it was asked last: errors and warnings of the page."""
        entries = self._driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [f"{entry['level']}: {entry['message']}" for entry in entries]

    def figures(self) -> list[tuple[str, str]]:
        """Name and visible text of every element that says which figure it shows, in the order of the page."""
        script = "return [...document.querySelectorAll('[data-stat]')].map(e => [e.dataset.stat, e.innerText])"
        return [(name, text.strip()) for name, text in self._driver.execute_script(script)]

    def text(self, selector: str = "body") -> str:
        """The visible text of the first element that a selector finds."""
        return str(self._driver.execute_script("return document.querySelector(arguments[0]).innerText", selector))

    def too_wide(self) -> list[str]:
        """What reaches beyond the window's right edge and cannot be scrolled to within a box of its own."""
        script = """
        const edge = document.documentElement.clientWidth;
        const boxed = e => e && (getComputedStyle(e).overflowX !== 'visible' || boxed(e.parentElement));
        return [...document.body.querySelectorAll('*')]
          .filter(e => e.getBoundingClientRect().right > edge + 1 && !boxed(e.parentElement))
          .map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ': ' + (e.textContent || '').slice(0, 40))
        """
        return list(self._driver.execute_script(script))

    def picture(self, out: Path, height: int | None = None) -> None:
        """Write the page from its top as a PNG: all of it, or so many CSS pixels."""
        width, whole = self._driver.execute_script(
            "return [innerWidth, Math.ceil(document.documentElement.scrollHeight)]"
        )
        clip = {"x": 0, "y": 0, "width": width, "height": min(height or whole, whole), "scale": 1}
        settings = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        taken = self._driver.execute_cdp_cmd("Page.captureScreenshot", settings)
        out.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def chrome() -> Iterator[Chrome]:
    """A browser, closed at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # No sandbox: tests run as root, and open only pages of ours.
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Chrome(driver)
    finally:
        driver.quit()
