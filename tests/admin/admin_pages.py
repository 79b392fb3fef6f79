"""What the tests of the admin share: how its pages are read and its forms are sent."""

import re
from collections.abc import Callable
from datetime import datetime

from django.test import Client

from shargain.offers.services.quota import QuotaInfo

NewQuota = Callable[..., QuotaInfo]
Spend = Callable[..., None]


def posted(moment: datetime | None, field: str) -> dict[str, str]:
    """A moment as the two inputs of the admin's date and time widget send it."""
    if moment is None:
        return {f"{field}_0": "", f"{field}_1": ""}
    return {f"{field}_0": f"{moment:%Y-%m-%d}", f"{field}_1": f"{moment:%H:%M:%S}"}


def text_of(client: Client, path: str, **params: str) -> str:
    response = client.get(path, params)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def cells(html: str, column: str) -> list[str]:
    """The text of a column in every row of a list, whatever the cell's other classes and attributes are."""
    name = rf'class="(?:[^"]*\s)?field-{re.escape(column)}(?:\s[^"]*)?"'
    found = re.findall(rf"<t(d|h)\b[^>]*\s{name}[^>]*>(.*?)</t\1>", html, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for _, cell in found]
