"""Headless Chromium from Debian's packages: opens a page, reads its content, and takes screenshots."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

INSTALL_HINT: Final = "chromium and chromedriver are needed (Debian: apt install chromium chromium-driver)"
WIDE, NARROW = 1280, 400
"""Window widths of a desktop and of a phone, in CSS pixels."""
_HEIGHT: Final = 900


def chrome_available() -> bool:
    """Whether the browser and its driver are installed."""
    return shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


class Chrome:
    """One browser window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, url: str, width: int = WIDE) -> None:
        """Open a page in a window of a given width, and drop the console messages of the previous page."""
        # A window cannot be narrower than 500 pixels, but its viewport can.
        metrics = {"width": width, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.console_messages()
        self._driver.get(url)

    def prefer_dark(self, wanted: bool) -> None:
        """Set the preferred color scheme."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def console_messages(self) -> list[str]:
        """Errors and warnings on the console since the last call."""
        entries = self._driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [f"{entry['level']}: {entry['message']}" for entry in entries]

    def stats(self) -> list[tuple[str, str]]:
        """Name and visible text of every element with a `data-stat` attribute, in page order."""
        script = "return [...document.querySelectorAll('[data-stat]')].map(e => [e.dataset.stat, e.innerText])"
        return [(name, text.strip()) for name, text in self._driver.execute_script(script)]

    def text(self, selector: str = "body") -> str:
        """Visible text of the first element that matches a selector."""
        return str(self._driver.execute_script("return document.querySelector(arguments[0]).innerText", selector))

    def overflowing(self) -> list[str]:
        """Elements that extend beyond the window's right edge, outside of scrollable boxes."""
        script = """
        const edge = document.documentElement.clientWidth;
        const boxed = e => e && (getComputedStyle(e).overflowX !== 'visible' || boxed(e.parentElement));
        return [...document.body.querySelectorAll('*')]
          .filter(e => e.getBoundingClientRect().right > edge + 1 && !boxed(e.parentElement))
          .map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ': ' + (e.textContent || '').slice(0, 40))
        """
        return list(self._driver.execute_script(script))

    def screenshot(self, out: Path, height: int | None = None) -> None:
        """Write the page as a PNG; height: CSS pixels from the top, all of it by default."""
        width, whole = self._driver.execute_script(
            "return [innerWidth, Math.ceil(document.documentElement.scrollHeight)]"
        )
        clip = {"x": 0, "y": 0, "width": width, "height": min(height or whole, whole), "scale": 1}
        settings = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        taken = self._driver.execute_cdp_cmd("Page.captureScreenshot", settings)
        out.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def chrome() -> Iterator[Chrome]:
    """Run a browser; closed at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # No sandbox: tests run as root, and open only our own pages.
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Chrome(driver)
    finally:
        driver.quit()
