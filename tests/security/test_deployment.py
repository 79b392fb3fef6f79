"""The settings as a deployment has them, judged by Django's own checks and by what answers carry."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from unfold.settings import CONFIG_DEFAULTS

from tests.deploy.compose_file import ROOT

from .conftest import Party
from .server import database_url

# What unfold cannot do without: docs/security.md says why.
UNSAFE_IN_THE_ADMIN = {"script-src 'self' 'unsafe-eval'", "style-src-attr 'unsafe-inline'"}
PRODUCTION = {
    "DJANGO_SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz" * 2,
    "DJANGO_HTTPS": "true",
    "DJANGO_BEHIND_PROXY": "true",
    "DJANGO_ALLOWED_HOSTS": "shargain.test",
}


def test_django_has_nothing_to_say_of_a_deployment(quota_db: None) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "check", "--deploy", "--fail-level", "DEBUG",
         "--database", "default"],
        cwd=ROOT,
        env={**os.environ, **PRODUCTION, "DATABASE_URL": database_url()},
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_only_what_the_proxy_decides_is_silenced() -> None:
    """W005 and W021 ask for what the domain's owner has to know: see the settings."""
    assert settings.SILENCED_SYSTEM_CHECKS == ["security.W005", "security.W021"]


def test_no_secret_is_in_the_settings() -> None:
    source = (ROOT / "shargain" / "settings.py").read_text()
    assert re.findall(r"(?i)(password|secret|token)\w*\s*=\s*['\"][^'\"]+['\"]", source) == []
    assert not re.search(r"://[^/\s\"]*:[^/\s\"]*@", source)


@pytest.mark.parametrize(
    "path",
    ["/admin/login/", "/admin/", "/api/v1/docs", "/api/v1/openapi.json", "/livez", "/nothing"],
)
def test_every_answer_carries_the_policies(path: str, party: Party, client: Client) -> None:
    answer = client.get(path, follow=True)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    policy = answer["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "style-src 'self'", "base-uri 'none'"} <= set(policy)
    assert "frame-ancestors 'none'" in policy
    assert "*" not in answer["Content-Security-Policy"]
    unsafe = {part for part in policy if "unsafe" in part}
    assert unsafe == (UNSAFE_IN_THE_ADMIN if path.startswith("/admin/") else set())
    assert sum(part.startswith("script-src") for part in policy) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/admin/login/",
        "/admin/",
        "/admin/offers/offer/",
        "/admin/offers/offerquota/add/",
        "/admin/auth/user/add/",
        "/api/v1/docs",
    ],
)
def test_no_page_needs_what_the_policy_forbids(
    path: str, party: Party, admin_client: Client
) -> None:
    page = admin_client.get(path, follow=True).content.decode()
    scripts = re.findall(r"<script([^>]*)>", page)
    assert scripts
    assert all("src=" in script or "application/json" in script for script in scripts), scripts
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)
    assert not re.search(r"(\ssrc=|<link[^>]*\shref=)\"(https?:)?//", page)


def test_the_colours_are_those_that_unfold_would_write_into_its_pages() -> None:
    """An update of unfold that brings another colour would leave it unset."""
    text = (ROOT / "shargain/console/static/console/theme.css").read_text()
    there = set(re.findall(r"--color-([\w-]+):", text))
    wanted = {f"{name}-{weight}" for name, w in CONFIG_DEFAULTS["COLORS"].items() for weight in w}
    assert there == wanted


def test_cookies_stay_out_of_scripts_and_plain_http(party: Party, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    party.owner.is_staff = True
    party.owner.set_password("a long enough one")
    party.owner.save()
    client = Client()
    form = {"username": party.owner.username, "password": "a long enough one"}
    cookies = client.post("/admin/login/", form).cookies
    assert cookies["sessionid"]["httponly"]
    assert cookies["sessionid"]["secure"]
    assert cookies["sessionid"]["samesite"] == "Lax"


def test_https_is_demanded_where_it_is_set() -> None:
    """In a process of its own, for settings are read once."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK_OVER_HTTP],
        cwd=ROOT,
        env={**os.environ, **PRODUCTION},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["301", "https://shargain.test/livez", "200", "max-age=31536000"]


_ASK_OVER_HTTP = """
import django
from django.test import Client
django.setup()
client = Client(headers={"host": "shargain.test"})
plain = client.get("/livez")
print(plain.status_code, plain["Location"])
behind = client.get("/livez", headers={"x-forwarded-proto": "https"})
print(behind.status_code, behind["Strict-Transport-Security"])
"""


def test_the_image_runs_as_nobody_special() -> None:
    text = Path(ROOT, "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
