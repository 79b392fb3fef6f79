"""An endless row of real listings, for posting faster than a marketplace is polite to be scraped."""

from dataclasses import replace
from functools import cache

from shargain.demo.marketplace import sample_offers
from shargain.offers.management.commands.scrape import new_offers
from shargain.offers.services.offer_creation import NewOffer

SITE = "https://marketplace.example"


def listings(first: int, count: int, edition: str = "") -> list[NewOffer]:
    """So many listings from number `first` on; another edition has other addresses throughout.

    Marketplaces list again what was not sold, and so does this one: the 3,000 listings come round
    and round, each time under a new address.
    """
    return [_listing(number, edition) for number in range(first, first + count)]


def _listing(number: int, edition: str) -> NewOffer:
    turn, index = divmod(number, len(_stock()))
    offer = _stock()[index]
    return replace(offer, url=f"{offer.url}?listed={turn}{edition}")


@cache
def _stock() -> tuple[NewOffer, ...]:
    return tuple(new_offers(sample_offers(SITE)))
