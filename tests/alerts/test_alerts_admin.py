"""The admin of alerts: a secret is shown once, addresses are checked, failed deliveries are tried again."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from receiving import Receiver, status

from shargain.alerts import deliveries
from shargain.alerts.models import Alert, Delivery, Endpoint, TargetThresholds
from shargain.offers.models import ScrapingTarget

ADD = "/admin/alerts/endpoint/add/"


def page_of(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_a_secret_is_shown_once(admin_client: Client, quota_db: None) -> None:
    form = {"name": "pager", "url": "https://example.org/hook", "is_active": "on"}
    page = admin_client.post(ADD, form, follow=True).content.decode()
    endpoint = Endpoint.objects.get()
    assert endpoint.secret in page
    change = f"/admin/alerts/endpoint/{endpoint.pk}/change/"
    for path in ("/admin/alerts/endpoint/", change):
        html = page_of(admin_client, path)
        assert endpoint.secret not in html
        assert endpoint.salt not in html
    action = {"action": "renew_secret", "_selected_action": [endpoint.pk]}
    page = admin_client.post("/admin/alerts/endpoint/", action, follow=True).content.decode()
    renewed = Endpoint.objects.get().secret
    assert renewed != endpoint.secret
    assert renewed in page


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://example.org:6379/",
        "https://me:pw@example.org/",
        "x",
        "file:///x",
    ],
)
def test_closed_addresses_cannot_be_saved(admin_client: Client, quota_db: None, url: str) -> None:
    page = admin_client.post(ADD, {"name": "pager", "url": url, "is_active": "on"})
    assert page.status_code == 200
    assert not Endpoint.objects.exists()
    assert "pw@" not in re.sub(r'value="[^"]*"', "", page.content.decode())


def test_thresholds_of_a_target(admin_client: Client, target: ScrapingTarget) -> None:
    form = {"target": target.pk, "percents": "50,90", "is_predicted": "on"}
    page = admin_client.post("/admin/alerts/targetthresholds/add/", {**form, "percents": "50,900"})
    assert page.status_code == 200
    assert not TargetThresholds.objects.exists()
    admin_client.post("/admin/alerts/targetthresholds/add/", form)
    assert TargetThresholds.objects.get().percents == [50, 90]
    assert "diamonds" in page_of(admin_client, "/admin/alerts/targetthresholds/")


def test_failed_deliveries_are_seen_and_tried_again(
    admin_client: Client,
    endpoint: Endpoint,
    receiver: Receiver,
    new_quota: Callable[..., Any],
    spend: Callable[[int], None],
) -> None:
    receiver.answer = status(500)
    new_quota(10)
    spend(8)
    deliveries.deliver()
    Delivery.objects.update(state="failed")
    alert = Alert.objects.get()
    html = page_of(admin_client, "/admin/alerts/alert/")
    assert "0 of 1, 1 failed" in html
    assert "80 %" in html
    assert "8 / 10" in html
    assert "status 500" in page_of(admin_client, f"/admin/alerts/alert/{alert.pk}/change/")
    receiver.answer = status(200)
    action = {"action": "try_again", "_selected_action": [alert.pk]}
    admin_client.post("/admin/alerts/alert/", action)
    assert deliveries.deliver() == 1
    assert "1 of 1" in page_of(admin_client, "/admin/alerts/alert/")
