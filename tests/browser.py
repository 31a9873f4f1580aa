"""Headless Chromium for tests. Without Debian's chromium and chromium-driver these tests are skipped."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needed = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


@contextlib.contextmanager
def chromium(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator:
    """A browser with a size in CSS pixels, as a Selenium driver; its console output is in `get_log("browser")`."""
    from selenium import webdriver
    from selenium.webdriver.chrome import options, service

    settings = options.Options()
    settings.binary_location = CHROMIUM or ""
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            settings.add_argument(flag)
        driver = webdriver.Chrome(options=settings, service=service.Service(DRIVER))
        try:
            # A window cannot be as narrow as a phone, so the size is emulated.
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield driver
        finally:
            driver.quit()
