"""What the tests of the operators' pages share: how a page is read, and how a bulk action is taken."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.test import Client

from shargain.offers.models import OfferQuota
from shargain.offers.services.quota import QuotaInfo

NewQuota = Callable[..., QuotaInfo]
LIST = "/admin/offers/offerquota/"


def plain(response: Any) -> str:
    """The text of a page."""
    assert response.status_code == 200, response.status_code
    main = response.content.decode().partition('id="content"')[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())


def hidden(response: Any, name: str) -> str:
    """The value of a hidden field, or of a button."""
    found = re.search(rf'name="{name}"\s+value="([^"]*)"', response.content.decode())
    assert found, f"there is no {name}"
    return unescape(found[1])


def has(response: Any, name: str) -> bool:
    return f'name="{name}"' in response.content.decode()


def choose(client: Client, action: str, *quotas: QuotaInfo) -> Any:
    """Begin a bulk action from the list."""
    chosen = [quota.id for quota in quotas]
    return client.post(LIST, {"action": action, ACTION_CHECKBOX_NAME: chosen}, follow=True)


def preview(client: Client, verb: str, page: Any, **values: Any) -> Any:
    """Ask what the action would do with these values."""
    return client.post(f"{LIST}bulk/{verb}/", {"chosen": hidden(page, "chosen"), **values})


def confirm(client: Client, verb: str, page: Any, **values: Any) -> Any:
    return preview(client, verb, page, confirmed=hidden(page, "confirmed"), **values)


def row(quota: QuotaInfo) -> OfferQuota:
    return OfferQuota.objects.get(pk=quota.id)
