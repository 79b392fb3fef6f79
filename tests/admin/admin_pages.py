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
    found = re.findall(rf'<t[dh] class="field-{column}[^"]*">(.*?)</t[dh]>', html)
    return [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in found]
