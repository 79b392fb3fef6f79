"""The examples of the README, run as they stand, and its tables against the code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import quota_redis.keys
from quota_redis.django import conf
from quota_redis.postgres.schema import FUNCTIONS
from quota_redis.scripts import NAMES
from tests.deploy.compose_file import ROOT
from tests.deploy.test_compose import read_by_settings

README = (ROOT / "README.md").read_text()
REDIS = "redis://127.0.0.1:6379/0"
POSTGRES = "postgresql://127.0.0.1:5432/app"
# What every project has in its settings.
IN_FRONT = (
    "SECRET_KEY = 'a test has no secrets'\n"
    "DATABASES = {{'default': {database!r}}}\n"
    "DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
)


def blocks(section: str) -> list[str]:
    """The Python blocks below a heading, up to the next one."""
    (text,) = re.findall(
        rf"^##+ {re.escape(section)}\n(.*?)(?=^##+ |\Z)", README, re.DOTALL | re.MULTILINE
    )
    found = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, section
    return found


def adapted(code: str) -> str:
    """The code with this run's servers, and patience with a busy machine."""
    replacements = {
        REDIS: os.environ["REDIS_URL"],
        POSTGRES: f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{_database()}",
        'namespace="api"': 'namespace="api", timeout=5',
        "boundary_skew=": "timeout=5, boundary_skew=",
        '_TIMEOUT": 0.05': '_TIMEOUT": 5',
    }
    for place, ours in replacements.items():
        code = code.replace(place, ours)
    return code


def run(code: str, folder: Path) -> str:
    """The output of a program of its own, which must not fail."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "DJANGO_SETTINGS_MODULE": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def database() -> Iterator[str]:
    """An empty database for one example."""
    name = _database()
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        server.execute(f"CREATE DATABASE {name}".encode())
        yield name
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(autouse=True)
def empty_redis() -> None:
    import redis

    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        client.flushdb()


def test_redis_alone(tmp_path: Path) -> None:
    (code,) = blocks("Redis alone")
    assert run(adapted(code), tmp_path) == "granted, 397 remain\n"
    assert run(adapted(code), tmp_path) == "granted, 397 remain\n"
    other = adapted(code).replace("job-1", "job-2").replace("limit=400", "limit=4")
    assert run(other, tmp_path) == "denied (full): 3 of 4 are used\n"


def test_many_at_once_asyncio_and_stocks(tmp_path: Path) -> None:
    (code,) = blocks("Many at once, asyncio, and stocks")
    assert run(adapted(code), tmp_path) == "granted 100 of 100\ngranted 298 of 500 from stock\n"


def test_with_the_ledger(database: str, tmp_path: Path) -> None:
    (code,) = blocks("With the ledger")
    said = run(adapted(code), tmp_path)
    assert said == "sent 20, denied 0\nsent 20, denied 0\nsent 10, denied 10\n"
    with psycopg.connect(_address(database)) as connection:
        counted = "SELECT used, (SELECT count(*) FROM message) FROM team_quota"
        assert connection.execute(counted.encode()).fetchall() == [(50, 50)]


def test_in_a_django_project(database: str, tmp_path: Path) -> None:
    for code in blocks("In a Django project"):
        heading, _, body = adapted(code).partition("\n")
        file = tmp_path / heading.removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    settings = tmp_path / "settings.py"
    settings.write_text(_in_front(database) + settings.read_text())
    for package in ("teams", "teams/migrations"):
        (tmp_path / package / "__init__.py").touch()
    bound = tmp_path / "teams" / "migrations" / "0002_bind.py"
    # As a reader would: the model first, then its migration, then the one that binds it.
    unbound = bound.rename(tmp_path / "later.py")
    manage = _MANAGE + "call_command('makemigrations', 'teams', verbosity=0)\n"
    run(manage, tmp_path)
    assert (tmp_path / "teams" / "migrations" / "0001_initial.py").exists()
    unbound.rename(bound)
    said = run(
        _MANAGE
        + "call_command('migrate', verbosity=0)\n"
        + "call_command('check', databases=['default'], fail_level='WARNING')\n"
        + "from datetime import UTC, datetime\n"
        + "from teams.models import Message, TeamQuota\n"
        + "from teams.sending import send\n"
        + "start = datetime(2026, 1, 1, tzinfo=UTC)\n"
        + "TeamQuota.objects.create(team=7, messages=50, period_start=start)\n"
        + "print(send(7, 20), send(7, 20), send(7, 20), Message.objects.count())\n"
        + "call_command('quota_sync')\n"
        + "print(TeamQuota.objects.get().sent)\n",
        tmp_path,
    )
    assert "20 20 10 50\n" in said
    assert said.endswith("50\n")


def test_the_table_of_variables_is_complete() -> None:
    rows = set(re.findall(r"^\| `([A-Z_]+)` \| .* \| .* \|$", README, re.MULTILINE))
    assert read_by_settings() <= rows
    assert rows - read_by_settings() == set(conf._TYPES)


def test_every_check_is_in_the_table() -> None:
    sources = [*(ROOT / "quota_redis" / "django").glob("*.py")]
    text = "".join(source.read_text() for source in sources)
    numbers = set(re.findall(r"\b[EW]0\d\d\b", text))
    (table,) = re.findall(r"^\| check .*?\n\n", README, re.DOTALL | re.MULTILINE)
    listed = set(re.findall(r"[EW]0\d\d", table)) | {f"E03{n}" for n in range(1, 5)}
    assert numbers == listed


def test_the_key_layout_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "project-architecture.md").read_text()
    keys = re.findall(r"^ +(q1:.*)$", quota_redis.keys.__doc__ or "", re.MULTILINE)
    assert len(keys) == 4
    state = (ROOT / "scripts" / "lua" / "include" / "state.lua").read_text()
    values = re.findall(r"^--   \S+ +'(.*?)'", state, re.MULTILINE)
    assert len(values) == 3
    missing = [line for line in [*keys, *values] if line not in text.replace("\\|", "|")]
    assert not missing


def test_the_scripts_and_functions_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "project-architecture.md").read_text()
    missing = [name for name in (*NAMES, *FUNCTIONS) if f"`{name}`" not in text]
    assert not missing


def test_the_glossary_has_only_words_that_the_code_uses() -> None:
    terms = re.findall(
        r"^\| ([a-z ]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE
    )
    assert terms[1:] == sorted(terms[1:])
    folders = ("quota_redis", "shargain", "scripts/lua")
    files = [
        f
        for folder in folders
        for kind in ("py", "lua", "sql")
        for f in (ROOT / folder).rglob(f"*.{kind}")
    ]
    code = " ".join(file.read_text() for file in files).lower()
    unused = [term for term in terms[1:] if not re.search(rf"\b{term}\b", code.replace("_", " "))]
    assert len(terms) > 30
    assert not unused


@pytest.mark.parametrize(
    "file", ["README.md", "CHANGELOG.md", "docs/project-architecture.md", "docs/glossary.md"]
)
def test_every_file_that_is_linked_to_exists(file: str) -> None:
    folder = (ROOT / file).parent
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / file).read_text())
    here = [link for link in links if "://" not in link]
    missing = [link for link in here if not (folder / link).exists()]
    assert not missing


_MANAGE = (
    "import os, django\n"
    "os.environ['DJANGO_SETTINGS_MODULE'] = 'settings'\n"
    "django.setup()\n"
    "from django.core.management import call_command\n"
)


def _in_front(database: str) -> str:
    import dj_database_url

    return IN_FRONT.format(database=dict(dj_database_url.parse(_address(database))))


def _address(database: str) -> str:
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{database}"


def _database() -> str:
    return f"readme_{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')}"
