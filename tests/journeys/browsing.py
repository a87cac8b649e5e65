"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from deploy.local import browser

PATIENCE_MILLISECONDS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start it for as long as the block lasts."""
    found = browser.ensure()
    # Its sandbox refuses to work for root, which tests in a container often are.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=found.program, env={**os.environ, **found.environment}, args=arguments
        )


@contextmanager
def page(program: Browser) -> Iterator[Page]:
    """Open a page of a browser that has never been anywhere."""
    context = program.new_context()
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    try:
        yield context.new_page()
    finally:
        context.close()


def sign_in(shown: Page, user: str, password: str) -> None:
    """Fill in the gateway's form, as a person with a keyboard would."""
    shown.get_by_label("User name").fill(user)
    shown.get_by_label("Password").fill(password)
    shown.keyboard.press("Enter")
