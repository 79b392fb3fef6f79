"""Scraper tokens: shown once, revoked, never edited."""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from admin_pages import cells, posted, text_of
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from shargain.api.models import ScraperToken

LIST = "/admin/api/scrapertoken/"


@pytest.fixture
def token(quota_db: None, admin_user: Any) -> ScraperToken:
    return ScraperToken.issue(admin_user, "north")[0]


def add(client: Client, owner: Any, expires_at: Any = None) -> Any:
    data = {"name": "south", "owner": owner.pk, **posted(expires_at, "expires_at")}
    return client.post(f"{LIST}add/", data, follow=True)


@pytest.mark.usefixtures("quota_db")
def test_the_plain_token_is_shown_exactly_once_and_works(
    admin_client: Client, admin_user: Any
) -> None:
    html = add(admin_client, admin_user).content.decode()

    [plain] = re.findall(r"never again: ([\w-]+)", html)
    issued = ScraperToken.authenticate(plain)
    assert issued is not None
    assert (issued.name, issued.owner) == ("south", admin_user)
    assert issued.token_hash not in html
    for path in (LIST, f"{LIST}{issued.pk}/change/", f"{LIST}{issued.pk}/history/"):
        page = text_of(admin_client, path)
        assert plain not in page
        assert issued.token_hash not in page
    assert not any(plain in str(entry) for entry in LogEntry.objects.all())


@pytest.mark.usefixtures("quota_db")
def test_an_expiry_is_kept_and_a_past_one_is_refused(admin_client: Client, admin_user: Any) -> None:
    end = timezone.now().replace(microsecond=0) + timedelta(days=1)

    refused = add(admin_client, admin_user, timezone.now() - timedelta(days=1))
    assert list(refused.context["adminform"].form.errors) == ["expires_at"]
    assert not ScraperToken.objects.exists()

    add(admin_client, admin_user, end)
    assert ScraperToken.objects.get().expires_at == end


def test_only_the_name_changes(
    admin_client: Client,
    token: ScraperToken,
    django_user_model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = django_user_model.objects.create_user("other")
    forged = {"owner": other.pk, "token_hash": "0" * 64, "prefix": "x", "last_used_at": ""}
    before = ScraperToken.objects.values().get()
    used_at = timezone.now()
    save = ScraperToken.save

    def used_meanwhile(self: ScraperToken, **how: Any) -> None:
        ScraperToken.objects.update(last_used_at=used_at)
        save(self, **how)

    monkeypatch.setattr(ScraperToken, "save", used_meanwhile)
    page = f"{LIST}{token.pk}/change/"

    assert 'name="owner"' not in text_of(admin_client, page)
    admin_client.post(page, {"name": "west", **forged})

    after = ScraperToken.objects.values().get()
    assert after == {**before, "name": "west", "last_used_at": used_at}


def test_a_revoked_token_is_refused_and_said_to_be(admin_client: Client, admin_user: Any) -> None:
    token, plain = ScraperToken.issue(admin_user, "north")
    data = {"action": "revoke", "_selected_action": [token.pk]}

    first = admin_client.post(LIST, data, follow=True).content.decode()
    revoked_at = ScraperToken.objects.get().revoked_at
    second = admin_client.post(LIST, data, follow=True).content.decode()

    assert "Revoked 1 of 1." in first
    assert "Revoked 0 of 1." in second
    assert cells(first, "state") == ["revoked"]
    assert ScraperToken.objects.get().revoked_at == revoked_at
    assert ScraperToken.authenticate(plain) is None


def test_who_may_only_view_cannot_issue_or_revoke(
    staff: Callable[[Sequence[str]], Client], token: ScraperToken, admin_user: Any
) -> None:
    client = staff(["view_scrapertoken"])

    assert add(client, admin_user).status_code == 403
    client.post(LIST, {"action": "revoke", "_selected_action": [token.pk]})

    assert ScraperToken.objects.get().revoked_at is None
