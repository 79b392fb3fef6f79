"""What is read from a page's markup, and that no markup whatsoever does harm."""

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shargain.scraping import (
    Extraction,
    ForbiddenAddress,
    ScrapeLimits,
    SkipReason,
    extract_offers,
)
from shargain.scraping.markup import read_markup

PAGE = "https://shop.example/bikes/?page=1"


def page(*blocks: Any, head: str = "") -> str:
    scripts = "".join(
        f'<script type="application/ld+json">{json.dumps(block)}</script>' for block in blocks
    )
    return f"<!doctype html><html><head>{head}{scripts}</head><body></body></html>"


def read(*blocks: Any, head: str = "", **limits: int) -> Extraction:
    return extract_offers(page(*blocks, head=head), PAGE, ScrapeLimits(**limits))


def product(name: str = "Bike", **more: Any) -> dict[str, Any]:
    return {
        "@type": "Product",
        "name": name,
        "url": f"/{name}",
        "offers": {"@type": "Offer", "price": "10"},
        **more,
    }


def test_a_product_with_all_its_particulars() -> None:
    found = read(
        {
            "@context": "https://schema.org",
            "@type": "Product",
            "name": "Red  bike",
            "image": [{"@type": "ImageObject", "url": "/red.jpg"}, "/other.jpg"],
            "sku": "R-1",
            "brand": {"@type": "Brand", "name": "Acme"},
            "datePublished": "2024-05-01T10:00:00+02:00",
            "additionalProperty": [{"@type": "PropertyValue", "name": "wheels", "value": 2}],
            "offers": {
                "@type": "Offer",
                "url": "../red?x=1#top",
                "price": 1234.5,
                "priceCurrency": "PLN",
                "itemCondition": "https://schema.org/UsedCondition",
            },
        }
    )
    (offer,) = found.offers
    assert offer.as_json() == {
        "url": "https://shop.example/red?x=1",
        "title": "Red bike",
        "list_url": PAGE,
        "price": "1234.50",
        "main_image_url": "https://shop.example/red.jpg",
        "metadata": {
            "currency": "PLN",
            "condition": "UsedCondition",
            "sku": "R-1",
            "brand": "Acme",
            "wheels": "2",
        },
        "published_at": "2024-05-01T08:00:00+00:00",
    }
    assert offer.published_at == datetime(2024, 5, 1, 8, tzinfo=UTC)
    assert not found.skipped


@pytest.mark.parametrize(
    "block",
    [
        product(),
        [product()],
        [[product()]],
        {"@graph": [{"@type": "WebSite", "name": "Shop"}, product()]},
        {"@type": "CollectionPage", "mainEntity": product()},
        {"@type": "ItemList", "itemListElement": [product()]},
        {"@type": "ItemList", "itemListElement": {"@type": "ListItem", "item": product()}},
        {
            "@type": "ItemList",
            "itemListElement": [{"@type": "ListItem", "url": "/Bike", "item": product(url=None)}],
        },
        product() | {"@type": ["http://schema.org/Product", "schema:Vehicle"]},
        {"@type": "http://schema.org/Offer", "name": "Bike", "url": "/Bike", "price": 10},
        {"@type": "Offer", "url": "/Bike", "price": "10", "itemOffered": {"name": "Bike"}},
        product(offers={"@type": "AggregateOffer", "lowPrice": "10", "highPrice": 99}),
        product(offers={"@type": "AggregateOffer", "offers": [{"price": 20}, {"price": 10}]}),
        product(offers=[{"price": 20}, {"price": 10}, {"price": "ask"}]),
        product(offers={"priceSpecification": {"price": 10}}),
        product(offers={"priceSpecification": [{"price": "10,00"}]}),
    ],
)
def test_the_shapes_in_which_an_offer_comes(block: Any) -> None:
    (offer,) = read(block).offers
    assert (offer.url, offer.title, offer.price) == (
        "https://shop.example/Bike",
        "Bike",
        Decimal("10.00"),
    )


def test_offers_with_addresses_of_their_own_are_listings_each() -> None:
    found = read(
        product(
            name="Bikes",
            offers={
                "@type": "AggregateOffer",
                "lowPrice": 1,
                "offers": [
                    {"@type": "Offer", "url": "/a", "name": "A", "price": 1},
                    {"@type": "Offer", "url": "/b", "price": 2},
                ],
            },
        )
    )
    assert [(offer.url[-2:], offer.title, offer.price) for offer in found.offers] == [
        ("/a", "A", 1),
        ("/b", "Bikes", 2),
    ]


def test_a_product_without_an_address_is_that_of_its_page() -> None:
    (offer,) = read(product(url=None)).offers
    assert offer.url == PAGE


def test_a_price_keeps_every_digit() -> None:
    html = page(product(offers={"price": "PRICE"})).replace('"PRICE"', "9007199254.93")
    assert extract_offers(html, PAGE).offers[0].price == Decimal("9007199254.93")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (product(name=""), SkipReason.NO_TITLE),
        (product(name=["\0"]), SkipReason.NO_TITLE),
        (product(url=None), SkipReason.NO_URL),
        (product(url="javascript:alert(1)"), SkipReason.BAD_URL),
        (product(url="http://["), SkipReason.BAD_URL),
        (product(url="http://user:secret@shop.example/"), SkipReason.BAD_URL),
        (product(url="/" + "x" * 2048), SkipReason.BAD_URL),
        (product(url="/" + "ż" * 1024), SkipReason.BAD_URL),
        (product(url="/\0"), SkipReason.BAD_URL),
        (product(url="/\ud800"), SkipReason.BAD_URL),
        (product(url=7), SkipReason.BAD_URL),
        (product(offers={"price": -1}), SkipReason.BAD_PRICE),
        (product(offers={"price": "99999999999"}), SkipReason.BAD_PRICE),
        (product("first"), SkipReason.DUPLICATE),
        ({"@type": "Product", "name": "Not for sale", "url": "/n"}, SkipReason.NO_OFFER),
        ("https://shop.example/elsewhere", SkipReason.NO_OFFER),
        ({"@type": "ListItem", "item": "https://shop.example/elsewhere"}, SkipReason.NO_OFFER),
        (None, SkipReason.NO_OFFER),
    ],
)
def test_a_malformed_entry_is_counted_and_the_others_are_kept(
    entry: Any, reason: SkipReason
) -> None:
    entries = [product("first"), entry, product("last")]
    found = read({"@type": "ItemList", "itemListElement": entries})
    assert [offer.title for offer in found.offers] == ["first", "last"]
    assert found.skipped == {reason: 1}


def test_breadcrumbs_are_no_offers() -> None:
    crumbs = {"@type": "BreadcrumbList", "itemListElement": [{"@type": "ListItem", "name": "x"}]}
    assert read(crumbs, product()).skipped == {}


@pytest.mark.parametrize(
    "broken", ["{", "", "\0", "[1,", '{"price": 1E99999999999999999999}', "[" * 100_000, "1" * 9999]
)
def test_a_broken_block_leaves_the_others(broken: str) -> None:
    html = f"<script type=application/ld+json>{broken}</script>" + page(product())
    found = extract_offers(html, PAGE)
    assert len(found.offers) == 1
    assert found.skipped in ({SkipReason.BAD_JSON: 1}, {})


def test_line_breaks_inside_json_text_are_forgiven() -> None:
    html = page(product()).replace("Bike", "Bi\nke", 1)
    assert extract_offers(html, PAGE).offers[0].title == "Bi ke"


def test_what_is_beyond_a_limit_is_counted() -> None:
    entries = [product(f"n{number}") for number in range(5)]
    found = read({"@type": "ItemList", "itemListElement": entries}, max_offers_per_page=3)
    assert (len(found.offers), found.skipped) == (3, {SkipReason.TOO_MANY: 2})

    nested: Any = product()
    for _ in range(20):
        nested = [nested]
    found = read(nested)
    assert (found.offers, found.skipped) == ((), {SkipReason.TOO_DEEP: 1})

    block = product()
    size = len(json.dumps(block))
    assert len(read(block, max_json_ld_chars=size).offers) == 1
    assert read(block, max_json_ld_chars=size - 1).skipped == {SkipReason.TOO_MUCH_JSON: 1}


@pytest.mark.parametrize(
    ("head", "following"),
    [
        ('<link rel="next" href="?page=2">', "https://shop.example/bikes/?page=2"),
        ("<A REL='nofollow NEXT' HREF=/x/2 >more</A>", "https://shop.example/x/2"),
        ('<a href="?a=1&amp;b=2" rel=next>', "https://shop.example/bikes/?a=1&b=2"),
        ('<base href="/root/"><link rel=next href=2>', "https://shop.example/root/2"),
        ('<a title="a > b" rel="next" href="/2">', "https://shop.example/2"),
        ('<link rel="next" href="/2"><a rel="next" href="/3">', "https://shop.example/2"),
        ('<!-- <link rel="next" href="/2"> -->', None),
        ('<script>"<link rel=next href=/2>"</script>', None),
        ('<link rel="next" href="javascript:x">', None),
        ('<link rel="next">', None),
        ('<link rel="nextish" href="/2">', None),
        ('<article rel="next" href="/2">', None),
    ],
)
def test_the_next_page(head: str, following: str | None) -> None:
    assert read(head=head).next_url == following


def test_a_page_address_that_is_none_is_the_callers_mistake() -> None:
    with pytest.raises(ForbiddenAddress, match="bikes"):
        extract_offers("", "bikes")


KEYS = [
    "@type", "@graph", "name", "url", "image", "offers", "price", "lowPrice", "item", "value",
    "itemListElement", "mainEntity", "itemOffered", "priceSpecification", "additionalProperty",
    "datePublished",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner
            | st.sampled_from(["Product", "Offer", "AggregateOffer", "ItemList", "/a", "1 000"]),
            max_size=6,
        )
    ),
    max_leaves=40,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON, max_size=3))
def test_no_json_whatsoever_raises_or_exceeds_the_bounds(blocks: list[Any]) -> None:
    found = read(*blocks, max_offers_per_page=2)
    assert len(found.offers) <= 2
    for offer in found.offers:
        assert offer.url.startswith(("http://", "https://"))
        assert 0 < len(offer.title) <= 500
        json.dumps(offer.as_json(), allow_nan=False).encode("utf-8")


FRAGMENTS = st.sampled_from(
    ["<script type=application/ld+json>", "</script>", "<!--", "-->", "<a rel=next href=", "<link ",
     "<base href=//", '"', "'", ">", "<", "{", "}", "\0", "\ud800", "&#x110000;", "[", "<title>"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS | st.text(max_size=5), max_size=30).map("".join))
def test_no_text_whatsoever_raises(html: str) -> None:
    extract_offers(html, PAGE)


@pytest.mark.parametrize(
    "piece",
    ["<!--", "<a ", "</a", "<script>", '<a b="', "<a x='", "<div>", "<b 1>", "<a x x x>", "<title>",
     "<script type=application/ld+json>", "<link rel=next ", "<option>", "<p><b>", '<a "x" '],
)  # fmt: skip
def test_reading_takes_time_in_proportion_to_the_size(piece: str) -> None:
    """A parser that builds a tree needs minutes of CPU for some of these, reading takes a blink."""
    html = (piece * 400_000)[:2_000_000]
    started = time.process_time()
    read_markup(html)
    assert time.process_time() - started < 10
