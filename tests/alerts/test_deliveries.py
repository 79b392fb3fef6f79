"""Deliveries: at least once, signed, tried again, and never to a closed address."""

import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.db.models.functions import Now
from receiving import Receiver, status

from shargain.alerts import deliveries, webhooks
from shargain.alerts.models import Alert, Delivery, Endpoint
from shargain.alerts.signing import new_salt, signature
from shargain.offers.models import ScrapingTarget
from shargain.offers.services.quota import QuotaInfo
from shargain.scraping import ForbiddenAddress

NewQuota = Callable[..., QuotaInfo]
Spend = Callable[[int], None]
GUIDE = Path(__file__).parents[2] / "docs" / "plans-and-alerts.md"


@pytest.fixture
def alert(endpoint: Endpoint, new_quota: NewQuota, spend: Spend) -> Alert:
    """One that waits for its delivery to the endpoint."""
    new_quota(10)
    spend(8)
    return Alert.objects.get()


def delivery() -> Delivery:
    return Delivery.objects.get()


def make_due() -> None:
    Delivery.objects.update(due_at=Now())


def test_a_webhook_arrives_signed(alert: Alert, endpoint: Endpoint, receiver: Receiver) -> None:
    assert deliveries.deliver() == 1
    [came] = receiver.seen
    assert came.headers["Shargain-Event-Id"] == str(alert.event_id)
    assert came.headers["Content-Type"] == "application/json"
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", came.headers["Shargain-Signature"])
    assert found
    signed = found[1].encode() + b"." + came.body
    assert found[2] == hmac.new(endpoint.secret.encode(), signed, hashlib.sha256).hexdigest()
    assert abs(int(found[1]) - time.time()) < 60
    content = json.loads(came.body)
    assert content["event_id"] == str(alert.event_id)
    assert (content["threshold"], content["quota"]["used"], content["quota"]["limit"]) == (
        "80",
        8,
        10,
    )
    assert content["target"] == {"id": alert.target_id, "name": "diamonds"}
    assert (delivery().state, delivery().error) == ("delivered", "")
    assert deliveries.deliver() == 0
    assert len(receiver.seen) == 1


def test_the_guides_example_verifies_what_arrives(
    alert: Alert, endpoint: Endpoint, receiver: Receiver
) -> None:
    deliveries.deliver()
    [came] = receiver.seen
    [example] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, str(GUIDE), "exec"), names)
    is_genuine = names["is_genuine"]
    header = came.headers["Shargain-Signature"]
    assert is_genuine(endpoint.secret, header, came.body)
    assert not is_genuine(endpoint.secret, header, came.body + b" ")
    assert not is_genuine("shw_other", header, came.body)
    assert not is_genuine(endpoint.secret, "nonsense", came.body)
    old = signature(endpoint.secret, int(time.time()) - 3600, came.body)
    assert not is_genuine(endpoint.secret, old, came.body), "an old one that is sent again"


@pytest.mark.parametrize("code", [302, 400, 404, 500, 503])
def test_what_is_not_taken_is_sent_again(alert: Alert, receiver: Receiver, code: int) -> None:
    receiver.answer = status(code, Location=receiver.url + "/elsewhere")
    assert deliveries.deliver() == 0
    assert (delivery().state, delivery().attempts) == ("waiting", 1)
    assert str(code) in delivery().error
    assert deliveries.deliver() == 0, "not before its pause is over"
    receiver.answer = status(200)
    make_due()
    assert deliveries.deliver() == 1
    assert [came.path for came in receiver.seen] == ["/hook", "/hook"], "no redirect is followed"
    ids = {came.headers["Shargain-Event-Id"] for came in receiver.seen}
    assert ids == {str(alert.event_id)}
    assert receiver.seen[0].body == receiver.seen[1].body


def test_it_is_given_up_after_some_attempts(alert: Alert, receiver: Receiver) -> None:
    receiver.answer = status(500)
    for _ in range(deliveries.MAX_ATTEMPTS + 2):
        make_due()
        deliveries.deliver()
    assert len(receiver.seen) == deliveries.MAX_ATTEMPTS
    assert delivery().state == "failed"


def test_a_receiver_that_hangs_is_left(endpoint: Endpoint, receiver: Receiver) -> None:
    done = threading.Event()
    receiver.answer = lambda _: done.wait(20) and None
    try:
        with pytest.raises(webhooks.NotDelivered, match="Timeout"):
            webhooks.send(endpoint, "1", b"{}", deadline_seconds=0.3)
    finally:
        done.set()


def test_an_answer_without_end_is_not_read(endpoint: Endpoint, receiver: Receiver) -> None:
    def flood(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(2_000):
            handler.wfile.write(b"x" * 65_536)

    receiver.answer = flood
    webhooks.send(endpoint, "1", b"{}", deadline_seconds=5)


def test_nobody_there_is_tried_again(alert: Alert, receiver: Receiver) -> None:
    Endpoint.objects.update(url="http://127.0.0.1:1/hook")
    from django.test import override_settings

    with override_settings(ALERT_WEBHOOK_HOSTS=[("127.0.0.1", 1)]):
        deliveries.deliver()
    assert (delivery().state, delivery().attempts) == ("waiting", 1)
    assert receiver.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/", "https://2130706433/", "https://0x7f.1/",
        "https://[::ffff:127.0.0.1]/", "http://example.org/", "https://example.org:8443/",
        "ftp://example.org/", "https://me:secret@example.org/", "file:///etc/passwd", "",
    ],
)  # fmt: skip
def test_closed_addresses_are_given_up_at_once(
    alert: Alert, receiver: Receiver, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    Endpoint.objects.update(url=url)
    deliveries.deliver()
    assert delivery().state == "failed"
    assert receiver.seen == []
    assert "secret" not in delivery().error + caplog.text


def test_a_name_that_leads_to_a_closed_address_is_given_up(
    endpoint: Endpoint, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection goes to the address that was checked, so an answer that changes gains nothing."""
    endpoint.url = "https://shop.example/"
    answers = [["1.1.1.1", "127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]]
    for answer in answers:
        with pytest.raises(webhooks.Undeliverable, match="not public"):
            webhooks.send(endpoint, "1", b"{}", resolve=lambda *_, found=answer: found)
    assert receiver.seen == []


def test_no_proxy_of_the_environment_is_asked(
    endpoint: Endpoint, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    webhooks.send(endpoint, "1", b"{}")
    assert len(receiver.seen) == 1


def test_loopback_is_closed_without_the_tests_own_setting(
    alert: Alert, receiver: Receiver, settings: Any
) -> None:
    settings.ALERT_WEBHOOK_HOSTS = []
    deliveries.deliver()
    assert (delivery().state, receiver.seen) == ("failed", [])


def test_many_workers_deliver_each_once(
    endpoint: Endpoint, receiver: Receiver, new_quota: NewQuota, spend: Spend
) -> None:
    for number in range(8):
        Endpoint.objects.create(name=str(number), url=receiver.url)
    new_quota(10)
    spend(10)
    start, done = threading.Barrier(4), []

    def run() -> None:
        try:
            start.wait(10)
            done.append(deliveries.deliver())
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (
        sum(done) == len(receiver.seen) == Delivery.objects.filter(state="delivered").count() == 18
    )


def test_a_worker_that_dies_leaves_it_to_the_next(
    alert: Alert, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had sent it, and could not say so: it comes twice, under the same id."""

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    real = webhooks.send

    def send_and_die(*values: Any, **named: Any) -> None:
        real(*values, **named)
        die()

    monkeypatch.setattr(webhooks, "send", send_and_die)
    with pytest.raises(KeyboardInterrupt):
        deliveries.deliver()
    monkeypatch.undo()
    assert delivery().state == "waiting"
    assert deliveries.deliver() == 0, "it is taken for a while"
    make_due()
    assert deliveries.deliver() == 1
    ids = [came.headers["Shargain-Event-Id"] for came in receiver.seen]
    assert ids == [str(alert.event_id)] * 2


def test_one_that_kills_its_worker_is_given_up_too(
    alert: Alert, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(webhooks, "send", die)
    for _ in range(deliveries.MAX_ATTEMPTS):
        make_due()
        with pytest.raises(KeyboardInterrupt):
            deliveries.deliver()
    make_due()
    assert deliveries.deliver() == 0
    assert (delivery().state, delivery().attempts) == ("failed", deliveries.MAX_ATTEMPTS)


def test_an_endpoint_hears_of_its_owners_targets(
    target: ScrapingTarget,
    receiver: Receiver,
    new_quota: NewQuota,
    spend: Spend,
    django_user_model: Any,
) -> None:
    other = django_user_model.objects.create_user("other")
    for name, owner in (("all", None), ("mine", target.owner), ("theirs", other)):
        Endpoint.objects.create(name=name, url=receiver.url, owner=owner)
    Endpoint.objects.create(name="off", url=receiver.url, is_active=False)
    new_quota(10)
    spend(8)
    names = Delivery.objects.values_list("endpoint__name", flat=True)
    assert sorted(names) == ["all", "mine"]


def test_an_endpoint_that_was_switched_off_gets_nothing_more(
    alert: Alert, receiver: Receiver
) -> None:
    Endpoint.objects.update(is_active=False)
    deliveries.deliver()
    assert (delivery().state, receiver.seen) == ("failed", [])


def test_pauses_grow_and_have_an_end() -> None:
    pauses = [deliveries.pause(n) for n in range(1, deliveries.MAX_ATTEMPTS + 1)]
    assert pauses == sorted(pauses)
    assert pauses[0] == timedelta(seconds=30)
    assert pauses[-1] == deliveries.pause(10**6) == timedelta(hours=6)


def test_secrets_differ_and_follow_the_salt(endpoint: Endpoint, settings: Any) -> None:
    before = endpoint.secret
    assert re.fullmatch(r"shw_[0-9a-f]{64}", before)
    assert Endpoint.objects.get().secret == before
    endpoint.salt = new_salt()
    assert endpoint.secret != before
    assert endpoint.salt not in endpoint.secret
    after = endpoint.secret
    settings.SECRET_KEY = "another"
    assert endpoint.secret != after


def test_the_longest_names_make_a_small_body(alert: Alert) -> None:
    body = webhooks.payload(alert, '\N{SNOWMAN}"' * 100_000)
    assert len(body) <= webhooks.MAX_BODY_BYTES


def test_which_addresses_may_be_saved() -> None:
    assert webhooks.check_url("https://example.org/hook").host == "example.org"
    for url in ("http://example.org/", "https://example.org:22/", "nonsense"):
        with pytest.raises(ForbiddenAddress):
            webhooks.check_url(url)


def test_an_owner_gets_an_email_where_that_is_on(
    target: ScrapingTarget, new_quota: NewQuota, spend: Spend, settings: Any
) -> None:
    target.name = "diamonds\r\nBcc: everybody@example.org"
    target.save()
    settings.ALERT_EMAIL_FROM = "quotas@example.org"
    new_quota(10)
    spend(10)
    assert deliveries.deliver() == 2
    first = next(m for m in mail.outbox if "100 %" in m.subject)
    assert first.to == ["owner@example.org"]
    assert first.from_email == "quotas@example.org"
    assert "\n" not in first.subject
    assert "10 of 10" in first.body
    ids = {m.extra_headers["X-Shargain-Event-Id"] for m in mail.outbox}
    assert ids == {str(a.event_id) for a in Alert.objects.all()}


def test_without_a_sender_no_email_leaves(
    target: ScrapingTarget, new_quota: NewQuota, spend: Spend
) -> None:
    new_quota(10)
    spend(10)
    assert Delivery.objects.count() == 0


def test_a_mail_server_that_is_down_is_tried_again(
    target: ScrapingTarget, new_quota: NewQuota, spend: Spend, settings: Any
) -> None:
    settings.ALERT_EMAIL_FROM = "quotas@example.org"
    new_quota(10)
    spend(8)
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert deliveries.deliver() == 0
    assert (delivery().state, delivery().attempts) == ("waiting", 1)
