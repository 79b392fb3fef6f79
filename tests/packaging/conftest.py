import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from packages import build, environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The package as it is published."""
    path = build("build_wheel", tmp_path_factory.mktemp("wheel"))
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))


@pytest.fixture(scope="session")
def environments(
    tmp_path_factory: pytest.TempPathFactory, wheel: zipfile.ZipFile
) -> dict[str, Path]:
    """A Python for each way to have the package, with our libraries and without our tree."""
    folder = tmp_path_factory.mktemp("environments")
    editable = zipfile.ZipFile(build("build_editable", folder))
    return {
        "wheel": environment(folder / "of_wheel", wheel),
        "editable": environment(folder / "of_editable", editable),
        "checkout": environment(folder / "of_checkout", None),
    }


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a new database."""
    server, name = os.environ["DATABASE_URL"], f"packaging_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield f"{server.rpartition('/')[0]}/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
