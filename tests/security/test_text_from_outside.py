"""Titles, names and addresses that strangers wrote, on their way to a log, a terminal and a page."""

import io
import logging
import logging.config
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client
from rich.console import Console

from shargain.demo.screen import Row, Screen, _live_table
from shargain.offers.models import FailedBatch, Offer, ScrapingTarget
from shargain.offers.services.offer_creation import NewOffer, create_offers
from shargain.printable import printable

from .conftest import Party
from .server import request, serve

FORGED = "x\n2026-01-01 00:00:00,000 CRITICAL shargain drift\r\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\x00"
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}{% csrf_token %}"


def is_harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.fixture
def log() -> Iterator[Any]:
    """A logger with the handler of the settings, and what it wrote."""
    output = io.StringIO()
    formatter = settings.LOGGING["formatters"]["record"]
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.config.DictConfigurator({}).configure_formatter(dict(formatter)))
    logger = logging.getLogger("test")
    logger.addHandler(handler)
    yield logger, output
    logger.removeHandler(handler)


def test_no_text_makes_a_log_record_of_its_own(log: Any) -> None:
    logger, output = log
    logger.warning("a title: %s", FORGED)
    logger.error("an error", exc_info=ValueError(FORGED))
    lines = output.getvalue().splitlines()
    assert [line for line in lines if "CRITICAL" in line and not line.startswith("    ")] == []
    assert sum(not line.startswith("    ") for line in lines) == 2
    assert is_harmless(output.getvalue())


def test_ordinary_text_is_logged_as_it_is(log: Any) -> None:
    logger, output = log
    logger.warning("Zażółć gęślą jaźń 你好 🚲 100%")
    assert output.getvalue().endswith(" WARNING test Zażółć gęślą jaźń 你好 🚲 100%\n")


@pytest.mark.parametrize("half", ["\ud800", "a\udfff"])
def test_half_of_a_surrogate_pair_can_be_written(half: str) -> None:
    printable(half).encode()


def test_the_log_of_the_web_process_has_no_line_that_a_client_wrote(
    party: Party, tmp_path: Path
) -> None:
    """Addresses, names of users and agents: all that an access log repeats."""
    user = b64encode(b"me\nFORGED\x1b[2J:x").decode()
    with serve(tmp_path) as server:
        server.send(
            request("GET", "/livez", Authorization=f"Basic {user}", Connection="close"),
        )
        server.send(
            request(
                "GET",
                "/api/v1/targets/1%0AFORGED%0D%1B%5B2J/quota",
                User_Agent="a\x1b[2Jb",
                Referer="\x9b31m",
                Connection="close",
            )
        )
        server.send(b"GET /\x1b[2J HTTP/1.1\r\nHost: a\x1b[2J\r\nConnection: close\r\n\r\n")
    text = server.log.read_text(encoding="utf-8", errors="surrogateescape")
    assert "FORGED" in text
    assert not [line for line in text.splitlines() if line.startswith("FORGED")]
    assert is_harmless(text.replace("\udc9b", "\x9b"))


def test_a_terminal_gets_no_control_characters() -> None:
    screen, output = Screen(), io.StringIO()
    screen._console = Console(file=output, width=200, force_terminal=False)
    row = Row(FORGED, FORGED, 1, 0, 1, 0, 0, 1.0)
    screen._console.print(_live_table([row], "a run"))
    screen.say(FORGED)
    assert "owned" in output.getvalue()
    assert is_harmless(output.getvalue())


def test_pages_of_the_admin_show_markup_as_text(party: Party, admin_client: Client) -> None:
    url = "https://market.test/" + MARKUP.replace(" ", "")
    offer = NewOffer(url=url, title=MARKUP, main_image_url=url, metadata={MARKUP: MARKUP})
    create_offers(party.target.pk, [offer], batch_id=uuid4())
    ScrapingTarget.objects.filter(pk=party.target.pk).update(name=MARKUP)
    failed = FailedBatch.objects.create(
        batch_id=uuid4(), target_id=1, payload={MARKUP: [MARKUP]}, error=MARKUP, attempts=1
    )
    token, quota = party.owner.scraper_tokens.get(), party.target.quotas.get()
    type(token).objects.update(name=MARKUP)
    kept = Offer.objects.get(title=MARKUP)
    for path in (
        "offers/offer/", f"offers/offer/{kept.pk}/change/", f"offers/offer/?target={party.target.pk}",
        f"offers/offer/?q={MARKUP}", "offers/failedbatch/", f"offers/failedbatch/{failed.pk}/change/",
        "offers/offerquota/", f"offers/offerquota/{quota.pk}/change/", "offers/scrapingtarget/",
        f"offers/scrapingtarget/{party.target.pk}/change/", "api/scrapertoken/",
        f"offers/offer/{kept.pk}/delete/", f"offers/offer/{kept.pk}/history/",
    ):  # fmt: skip
        page = admin_client.get(f"/admin/{path}").content.decode()
        assert "alert(1)" in page, path
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", " javascript:alert(1)"])
def test_only_web_addresses_become_links(url: str, party: Party, admin_client: Client) -> None:
    """The service refuses these, so they get into the table by another way."""
    Offer.objects.update(url=url, main_image_url=url, list_url=url)
    page = admin_client.get(
        f"/admin/offers/offer/{Offer.objects.get().pk}/change/"
    ).content.decode()
    assert "alert(1)" in page or "text/html,x" in page
    assert f'href="{url}' not in page
