"""What is published: the package alone, whole, with one dependency."""

import importlib
import re
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest
from packages import ROOT, build

DIST_INFO = "quota_redis-0.1.0.dist-info"


@pytest.fixture(scope="session")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(f"{DIST_INFO}/METADATA"))


def required(metadata: Message, extra: str | None) -> set[str]:
    """Names of what the package needs, by itself (None) or with an extra."""
    found = set()
    for line in metadata.get_all("Requires-Dist", []):
        match = re.search(r"extra == '(\w+)'", line)
        if (match[1] if match else None) == extra:
            found.add(re.split(r"[<>=; ]", line)[0])
    return found


def test_it_holds_the_package_alone(wheel: zipfile.ZipFile) -> None:
    assert {name.partition("/")[0] for name in wheel.namelist()} == {"quota_redis", DIST_INFO}


def test_it_holds_all_of_the_package(wheel: zipfile.ZipFile) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "quota_redis").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    lua = {
        "quota_redis/lua/" + str(path.relative_to(ROOT / "scripts" / "lua"))
        for path in (ROOT / "scripts" / "lua").rglob("*.lua")
    }
    assert {"quota_redis/py.typed", "quota_redis/postgres/sql/v1.sql"} <= ours
    assert len(lua) >= 10
    published = {name for name in wheel.namelist() if name.startswith("quota_redis/")}
    assert published == ours | lua


def test_its_lua_is_that_of_the_tree(wheel: zipfile.ZipFile) -> None:
    for path in (ROOT / "scripts" / "lua").rglob("*.lua"):
        name = path.relative_to(ROOT / "scripts" / "lua")
        assert wheel.read(f"quota_redis/lua/{name}") == path.read_bytes()


def test_it_holds_its_license(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert b"MIT" in wheel.read(f"{DIST_INFO}/licenses/LICENSE")


def test_the_core_has_one_dependency(metadata: Message) -> None:
    assert required(metadata, None) == {"redis[hiredis]"}


def test_its_extras(metadata: Message) -> None:
    extras = {name: required(metadata, name) for name in metadata.get_all("Provides-Extra", [])}
    assert extras == {
        "postgres": {"psycopg"},
        "django": {"django", "django-redis", "psycopg"},
        "celery": {"celery"},
        "metrics": {"prometheus-client"},
        "testing": {"pytest", "fakeredis[lua]"},
    }


def test_a_wheel_can_be_made_from_the_sources(tmp_path: Path, wheel: zipfile.ZipFile) -> None:
    sources = build("build_sdist", tmp_path)
    with tarfile.open(sources) as archive:
        # The first releases of Python 3.11 have no filters.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **safely)
    tree = tmp_path / sources.name.removesuffix(".tar.gz")
    assert not (tree / "shargain").exists()
    again = zipfile.ZipFile(build("build_wheel", tmp_path, of=tree))
    assert sorted(again.namelist()) == sorted(wheel.namelist())


@pytest.mark.parametrize(
    "name",
    ["quota_redis", "quota_redis.postgres", "quota_redis.django.models", "quota_redis.testing"],
)
def test_what_a_module_offers_is_there_and_sorted(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, offered) for offered in module.__all__)


@pytest.mark.parametrize("name", ["quota_redis", "quota_redis.postgres"])
def test_what_a_package_imports_is_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    public = {
        found
        for found, value in vars(module).items()
        if not found.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(module.__all__)


def test_every_error_is_offered() -> None:
    from quota_redis import errors

    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert raised <= set(importlib.import_module("quota_redis").__all__)
