"""Builds the package, installs it and runs programs that use it."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
LIBRARIES = sysconfig.get_paths()["purelib"]

RunPython: TypeAlias = Callable[..., str]


def build(hook: str, where: Path, *, of: Path = ROOT) -> Path:
    """Call a hook of the build backend, as an installer would; returns the file that it built."""
    code = f"import hatchling.build, sys; print(hatchling.build.{hook}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(where)],
        cwd=of,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return where / done.stdout.splitlines()[-1]


def environment(folder: Path, package: zipfile.ZipFile | None) -> Path:
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "libraries.pth").write_text(f"{LIBRARIES}\n")
    if package:
        package.extractall(site)
    return folder / "bin" / "python"


def runner(environments: dict[str, Path], kind: str, cwd: Path) -> RunPython:
    """Runs programs that use the package, far from the tree; returns what they print."""
    paths = str(ROOT) if kind == "checkout" else ""

    def run(*arguments: str, **variables: str) -> str:
        done = subprocess.run(
            [str(environments[kind]), *arguments],
            cwd=cwd,
            env={
                "PATH": os.environ["PATH"],
                "REDIS_URL": os.environ["REDIS_URL"],
                "DATABASE_URL": os.environ["DATABASE_URL"],
                "PYTHONPATH": paths,
                "PYTHONWARNINGS": "error",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
