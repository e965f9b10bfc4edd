"""
A real browser: headless Chromium, whose every request, message and error is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from attrs import field, frozen

from tests.kits.programs import lacking

#: Chromium tries to reach its maker as it starts.
_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: What a page that its policy keeps from something reports.
_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@frozen
class Visit:
    """
    A page, and what it did.

    :ivar page: of playwright.
    :ivar requests: the addresses that it asked for.
    :ivar errors: what went wrong in its script.
    """

    page: Any
    requests: list[str] = field(factory=list)
    errors: list[str] = field(factory=list)

    def check(self, origin: str) -> None:
        """Nothing went wrong, nothing was forbidden, and nothing left the origin."""
        assert self.errors == []
        assert self.page.evaluate("window.violations") == []
        assert [url for url in self.requests if not url.startswith(f"{origin}/")] == []


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a browser; without one the test is skipped, or in CI fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        lacking("chromium is not installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Any, url: str, width: int = 1200, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Visit]:
    """Open a page in a profile of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        permissions=["clipboard-read", "clipboard-write"],
        locale="en-GB",
        timezone_id="UTC",
    )
    context.add_init_script(_VIOLATIONS)
    found = Visit(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    try:
        found.page.goto(url)
        yield found
    finally:
        context.close()
