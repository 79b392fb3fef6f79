"""A real browser before the web process as it is shipped. Skipped where there is no Chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.security.server import HOST, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PASSWORD = "correct horse"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        skip = pytest.mark.skip(reason="no Chromium: install the package chromium to run these")
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    # The driver keeps a loop of its own in this thread, and Django would take it for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def address(quota_db: None, tmp_path: Path) -> Iterator[str]:
    hosts = f"127.0.0.1,{HOST}"
    with serve(tmp_path, DJANGO_ALLOWED_HOSTS=hosts, DJANGO_HTTPS="false") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Visitor:
    """A page in the browser, whose console must stay free of errors."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text) if message.type == "error" else None
            ),
        )

    def open(self, path: str) -> None:
        self.page.goto(self.address + path)

    def log_in(self, name: str, path: str) -> None:
        self.open(path)
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.enter()

    def enter(self) -> None:
        """Press the return key, and wait for the page that this leads to."""
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def text(self) -> str:
        return " ".join(self.page.locator("body").inner_text().split())

    def tab_to(self, name: str, most: int = 80) -> None:
        """Go to the element of this name with the keyboard alone."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            found = self.page.evaluate(FOCUSED)
            if any(name in str(each) for each in found if each):
                return
        raise AssertionError(f"the keyboard does not reach {name!r}")

    def check(self, *, context: str = "body") -> None:
        """Nothing that axe finds wrong, nothing wider than the window, no complaint of the browser."""
        found = Axe().run(self.page, context=context, options=RULES).response["violations"]
        assert not found, [(each["id"], [n["html"][:200] for n in each["nodes"]]) for each in found]
        width = self.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0, f"{width} px wider than the window"
        assert not self.complaints, self.complaints


FOCUSED = """() => {
    const it = document.activeElement;
    if (it === document.body) return [];
    return [it.innerText, it.value, it.getAttribute("aria-label"), it.labels?.[0]?.innerText];
}"""
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.fixture(params=[1280, 390], ids=["desk", "phone"])
def visitor(
    request: pytest.FixtureRequest, chromium: Browser, address: str, scheme: Any
) -> Iterator[Visitor]:
    size = {"width": request.param, "height": 900}
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(20_000)
    yield Visitor(context.new_page(), address)
    context.close()
