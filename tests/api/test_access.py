"""Who may do what: one answer to every bad token, one to every target that is not the owner's."""

from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from django.utils import timezone

from shargain.api.models import ScraperToken
from shargain.offers.models import Offer, ScrapingTarget

from .conftest import Scraper, offer


def expire(token: ScraperToken) -> None:
    ScraperToken.objects.filter(pk=token.pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )


def deactivate_owner(token: ScraperToken) -> None:
    token.owner.is_active = False
    token.owner.save()


@pytest.mark.parametrize("spoil", [expire, ScraperToken.revoke, deactivate_owner])
def test_a_token_that_no_longer_holds_is_answered_like_an_unknown_one(
    scraper: Scraper, spoil: Callable[[ScraperToken], None]
) -> None:
    assert scraper.post(offer()).status_code == 201
    spoil(ScraperToken.objects.get())
    refused = scraper.post(offer(2))
    scraper.token = "shg_" + "0" * 43
    unknown = scraper.post(offer(2))

    assert refused.status_code == 401
    assert refused["WWW-Authenticate"] == 'Bearer realm="shargain"'
    assert (refused.content, refused.headers) == (unknown.content, unknown.headers)
    assert Offer.objects.count() == 1


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic b3duZXI6", "Bearer a b", "Bearer \xe9\xff"]
)
def test_what_is_no_token_is_answered_like_an_unknown_one(
    scraper: Scraper, header: str | None
) -> None:
    url = f"/api/v1/targets/{scraper.target.pk}/quota"
    refused = scraper.client.get(url, headers={} if header is None else {"Authorization": header})
    scraper.token = "shg_" + "0" * 43
    unknown = scraper.quota()
    assert refused.status_code == 401
    assert (refused.content, refused.headers) == (unknown.content, unknown.headers)


class Untouchable(BytesIO):
    def read(self, *args: Any) -> bytes:
        raise AssertionError("the body was read")


def test_the_token_is_checked_before_the_body_is_read(scraper: Scraper) -> None:
    environ = {"wsgi.input": Untouchable(), "CONTENT_LENGTH": "100"}
    with pytest.raises(AssertionError, match="the body was read"):
        scraper.send(b"", **environ)
    scraper.token = "shg_" + "0" * 43
    assert scraper.send(b"", **environ).status_code == 401


def test_a_foreign_target_is_answered_like_an_unknown_one(
    scraper: Scraper, foreign_target: ScrapingTarget
) -> None:
    own = ScrapingTarget.objects.create(name="Off", owner=scraper.target.owner, is_active=False)
    body = '{"offers": [{"url": "https://market.test/1", "title": "Ad"}]}'
    for ask in (scraper.quota, lambda target: scraper.send(body, target=target)):
        answers = [ask(target=pk) for pk in (foreign_target.pk, own.pk, 10**6, 10**30)]
        assert [answer.status_code for answer in answers] == [404] * 4
        assert len({answer.content for answer in answers}) == 1
    assert not Offer.objects.exists()


def test_a_token_opens_all_targets_of_its_owner_and_no_more(
    scraper: Scraper, foreign_target: ScrapingTarget
) -> None:
    second = ScrapingTarget.objects.create(name="Second", owner=scraper.target.owner)
    assert scraper.quota(target=second.pk).status_code == 200
    assert scraper.quota(target=foreign_target.pk).status_code == 404
