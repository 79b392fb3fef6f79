import hashlib
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from shargain.api.models import ScraperToken

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("owner")


def test_only_the_hash_of_a_token_is_kept(owner: Any) -> None:
    token, plain = ScraperToken.issue(owner, "scraper")
    token.refresh_from_db()
    kept = [str(getattr(token, field.attname)) for field in ScraperToken._meta.fields]

    assert token.token_hash == hashlib.sha256(plain.encode()).hexdigest()
    assert not any(plain in value for value in kept)
    assert plain.startswith(token.prefix)
    assert len(plain) - len(token.prefix) > 30


def test_tokens_are_all_different(owner: Any) -> None:
    assert len({ScraperToken.issue(owner, "scraper")[1] for _ in range(20)}) == 20


def test_a_token_opens_until_it_expires(owner: Any) -> None:
    token, plain = ScraperToken.issue(owner, "scraper", timezone.now() + timedelta(hours=1))
    assert ScraperToken.authenticate(plain) == token

    ScraperToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert ScraperToken.authenticate(plain) is None


def test_a_revoked_token_stays_revoked_since_the_first_time(owner: Any) -> None:
    token, plain = ScraperToken.issue(owner, "scraper")
    token.revoke()
    first = token.revoked_at
    token.revoke()

    assert first is not None
    assert token.revoked_at == first
    assert ScraperToken.authenticate(plain) is None


def test_the_token_of_a_deactivated_owner_does_not_open(owner: Any) -> None:
    _, plain = ScraperToken.issue(owner, "scraper")
    owner.is_active = False
    owner.save()
    assert ScraperToken.authenticate(plain) is None


@pytest.mark.parametrize(
    "plain", ["", "shg_", "shg_" + "a" * 43, "shg_é" + "a" * 42, "a\0b", "\ud800"]
)
def test_an_unknown_token_does_not_open(owner: Any, plain: str) -> None:
    assert ScraperToken.authenticate(plain) is None


def test_use_is_noted_at_most_once_a_minute(owner: Any, django_assert_num_queries: Any) -> None:
    token, plain = ScraperToken.issue(owner, "scraper")
    with django_assert_num_queries(2):
        ScraperToken.authenticate(plain)
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None

    with django_assert_num_queries(1):
        ScraperToken.authenticate(plain)

    long_ago = timezone.now() - timedelta(seconds=61)
    ScraperToken.objects.update(last_used_at=long_ago)
    ScraperToken.authenticate(plain)
    token.refresh_from_db()
    assert token.last_used_at > long_ago


@pytest.mark.parametrize(
    ("name", "expires_at", "named"),
    [
        ("", None, "name"),
        ("  ", None, "name"),
        ("x" * 101, None, "name"),
        ("a\0b", None, "name"),
        ("scraper", datetime(2100, 1, 1), "time zone"),  # noqa: DTZ001 - naive is the point
        ("scraper", timezone.now() - timedelta(days=1), "future"),
    ],
)
def test_a_bad_token_is_not_issued(
    owner: Any, name: str, expires_at: datetime | None, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        ScraperToken.issue(owner, name, expires_at)
    assert not ScraperToken.objects.exists()


def test_the_command_prints_the_token_alone_to_standard_output(owner: Any) -> None:
    out, err = StringIO(), StringIO()
    call_command("issue_scraper_token", "owner", "scraper", days=30, stdout=out, stderr=err)
    plain = out.getvalue().strip()
    token = ScraperToken.authenticate(plain)

    assert token is not None
    assert token.owner == owner
    assert timedelta(days=29) < token.expires_at - timezone.now() <= timedelta(days=30)
    assert plain not in err.getvalue()


@pytest.mark.parametrize(
    ("username", "name", "days", "named"),
    [
        ("nobody", "scraper", None, "'nobody'"),
        ("owner", "", None, "name"),
        ("owner", "scraper", 0, "--days is 0"),
        ("owner", "scraper", 10**9, "--days is 1000000000"),
    ],
)
def test_the_command_says_what_is_wrong(
    owner: Any, username: str, name: str, days: int | None, named: str
) -> None:
    with pytest.raises(CommandError, match=named):
        call_command("issue_scraper_token", username, name, days=days)
