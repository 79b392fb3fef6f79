"""A token is seen twice in its life: when it is issued, and in the header field of its user."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from shargain.api.models import ScraperToken

from .conftest import Party
from .server import request, serve, statuses

JSON = "application/json"
PLAIN = r"shg_[A-Za-z0-9_-]{43}"


def database_text() -> str:
    """Every value of every row of every table."""
    with connection.cursor() as cursor:
        found = []
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT row_to_json(t)::text FROM "{table}" t')
            found += [row for (row,) in cursor.fetchall()]
    return "\n".join(found)


def test_a_token_from_the_admin_is_shown_once_and_kept_nowhere(
    party: Party, admin_user: Any
) -> None:
    """Not in the log of edits either, nor in the session that carries the message to the next page."""
    client = Client()
    client.force_login(admin_user)
    form = {"name": "from the admin", "owner": party.owner.pk}
    response = client.post("/admin/api/scrapertoken/add/", form)
    assert response.status_code == 302
    assert "shg_" not in response["Location"]
    assert not re.search(PLAIN, database_text())
    page = client.get(response["Location"]).content.decode()
    [plain] = re.findall(PLAIN, page)
    assert ScraperToken.authenticate(plain)

    assert plain not in client.get(response["Location"]).content.decode()
    text = database_text()
    assert ScraperToken.objects.get(name="from the admin").token_hash in text
    assert plain not in text
    assert plain[15:] not in text


def test_the_page_that_shows_a_token_is_not_cached(party: Party, admin_user: Any) -> None:
    client = Client()
    client.force_login(admin_user)
    page = client.get("/admin/api/scrapertoken/")
    assert {"no-store", "private"} <= set(page["Cache-Control"].split(", "))


def test_no_address_takes_a_token(party: Party, client: Client) -> None:
    """What is in an address ends in logs, so a token there opens nothing."""
    path = f"/api/v1/targets/{party.target.pk}/quota"
    for name in ("token", "access_token", "key", "authorization", "api_key"):
        assert client.get(path, {name: party.token}).status_code == 401
        client.cookies[name] = party.token
    assert client.get(path).status_code == 401
    assert client.get(path, headers=party.headers).status_code == 200


def test_a_login_of_the_admin_opens_no_api(party: Party, admin_client: Client) -> None:
    """Else every page that an admin visits could post in their name."""
    path = f"/api/v1/targets/{party.target.pk}"
    assert admin_client.get(f"{path}/quota").status_code == 401
    assert admin_client.post(f"{path}/offers", b"{}", content_type=JSON).status_code == 401


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_no_log_of_a_run_has_a_token_or_a_password(
    level: str, party: Party, tmp_path: Path
) -> None:
    path = f"/api/v1/targets/{party.target.pk}"
    body = b'{"offers": [{"url": "https://market.test/9", "title": "Ad"}]}'
    revoked, plain = ScraperToken.issue(party.owner, "revoked")
    revoked.revoke()
    with serve(tmp_path, LOG_LEVEL=level) as server:
        seen = set()
        for token in (party.token, plain):
            fields = {
                "Authorization": f"Bearer {token}",
                "Content_Type": JSON,
                "Content_Length": str(len(body)),
                "Connection": "close",
            }
            for method, place, sent, more in (
                ("GET", f"{path}/quota", b"", {"Content_Length": "0"}),
                ("POST", f"{path}/offers", body, {}),
                ("POST", f"{path}/offers", b"{" * len(body), {}),
                ("POST", f"{path}/offers", body, {"Idempotency_Key": "none"}),
                ("POST", f"{path}/offers", b"", {"Content_Length": "9999999"}),
                ("PUT", f"{path}/offers", body, {}),
                ("GET", f"{path}/nothing", b"", {"Content_Length": "0"}),
            ):
                seen |= set(statuses(server.send(request(method, place, sent, **fields | more))))
        login = b"username=owner&password=s3cret-of-a-login"
        server.send(
            request(
                "POST",
                "/admin/login/",
                login,
                Content_Type="application/x-www-form-urlencoded",
                Content_Length=str(len(login)),
                Connection="close",
            )
        )
        assert {200, 201, 400, 401, 404, 405, 413, 422} <= seen
    log = server.log.read_text()
    assert f"POST {path}/offers" in log
    for secret in (party.token, plain, "s3cret-of-a-login", connection.settings_dict["PASSWORD"]):
        assert secret not in log
        assert secret[15:] not in log or len(secret) < 30
    assert "0123456789abcdefghijklmnopqrstuvwxyz" not in log
