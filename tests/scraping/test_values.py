from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shargain.scraping.values import MAX_PRICE, to_datetime, to_price, to_text


@pytest.mark.parametrize(
    ("written", "price"),
    [
        (Decimal(326), "326.00"),
        (Decimal("19.995"), "20.00"),
        (Decimal(0), "0.00"),
        ("326", "326.00"),
        ("1234.5", "1234.50"),
        ("1,234.50", "1234.50"),
        ("1.234,50 €", "1234.50"),
        ("1 234,50 zł", "1234.50"),
        ("1\u00a0234,50\u00a0zł", "1234.50"),
        ("$1,234", "1234.00"),
        ("1.234.567", "1234567.00"),
        ("1,234,567.8", "1234567.80"),
        ("12,5", "12.50"),
        ("CHF 1'200.-", "1200.00"),
        ("from 100 to 200", "100.00"),
        ("9999999999.99", "9999999999.99"),
    ],
)
def test_a_price_is_read_as_it_is_written(written: object, price: str) -> None:
    assert to_price(written) == Decimal(price)


@pytest.mark.parametrize("written", ["negotiable", "", None, True, [], {}, "٣٤", 5.5])
def test_what_names_no_price_has_none(written: object) -> None:
    assert to_price(written) is None


@pytest.mark.parametrize(
    "written", ["-5", "- 5 zł", Decimal(-1), "10000000000", Decimal("1E+999999"), "9999999999.995"]
)
def test_an_impossible_price_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="price"):
        to_price(written)


@given(st.text(alphabet="0123456789.,' -€\u2019\u00a0x") | st.text())
def test_a_price_is_whole_cents_within_what_is_stored(written: str) -> None:
    try:
        price = to_price(written)
    except ValueError:
        return
    assert price is None or (0 <= price <= MAX_PRICE and price.as_tuple().exponent == -2)


@given(st.text(alphabet=st.characters()), st.integers(1, 50))
def test_text_is_clean_and_bounded(written: str, most: int) -> None:
    text = to_text(written, most)
    assert len(text) <= most
    assert text == text.strip()
    assert "\0" not in text
    assert text.encode("utf-8").decode() == text


def test_text_takes_a_name_the_first_of_several_and_numbers() -> None:
    assert to_text({"@type": "Brand", "name": "Acme"}, 10) == "Acme"
    assert to_text(["one", "two"], 10) == "one"
    assert to_text(Decimal("0.23"), 10) == "0.23"
    assert to_text("a\0b\ud800  c\n", 10) == "a b c"


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T10:00:00Z", datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("2024-05-01T10:00:00+02:00", datetime(2024, 5, 1, 8, tzinfo=UTC)),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2024-05-01" + " " * 99, None),
        (Decimal(2024), None),
    ],
)
def test_a_date_is_read_in_utc(written: object, moment: datetime | None) -> None:
    assert to_datetime(written) == moment
