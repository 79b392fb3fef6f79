"""The package does its work from a wheel, an editable install and a checkout, without and with Django."""

import json
import shutil
from pathlib import Path

import pytest
from packages import ROOT, runner

HERE = Path(__file__).parent


@pytest.mark.parametrize("kind", ["wheel", "editable", "checkout"])
def test_without_django(
    environments: dict[str, Path], kind: str, tmp_path: Path, database: str
) -> None:
    program = tmp_path / "use.py"
    shutil.copy(HERE / "use_without_django.py", program)
    run = runner(environments, kind, tmp_path)
    told = json.loads(run(str(program), DATABASE_URL=database))
    assert (told["used"], told["spent"]) == (5, [3, 1, 0])
    if kind == "wheel":
        installed = environments[kind].parents[1]
        assert Path(told["package"]).is_relative_to(installed)
        assert Path(told["lua"]) == Path(told["package"]) / "lua"
    else:
        assert Path(told["package"]) == ROOT / "quota_redis"
        assert Path(told["lua"]) == ROOT / "scripts" / "lua"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of a small Django project, far from the tree."""
    return Path(
        shutil.copytree(
            HERE / "project", tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__")
        )
    )


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_in_a_project_that_is_not_shargain(
    environments: dict[str, Path], kind: str, project: Path, database: str
) -> None:
    out = runner(environments, kind, project)("sell.py", DATABASE_URL=database)
    assert out.count("no issues") == 2
    assert "No changes detected" in out
    assert "0 differences" in out
    told = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    assert told == {"subject": "room:blue größe", "sold": [2, 2, 1, 0], "column": 5}
