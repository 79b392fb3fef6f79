"""docker-compose.yml and Dockerfile as their tools would read them, as far as these tests need it."""

import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Put in the variables as compose does; an empty one counts as missing."""
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        if name is None:
            return "$"
        given = variables.get(name, "")
        if kind == "?" and not given:
            raise LookupError(f"{name}: {text}")
        return given or (text if kind == "-" else "")

    return _VARIABLE.sub(replacement, value)


def required_variables() -> dict[str, str]:
    """The variables that the file cannot do without, and what it says where one is missing."""
    text = (ROOT / "docker-compose.yml").read_text()
    return {name: said for name, kind, said in _VARIABLE.findall(text) if kind == "?"}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def copied() -> list[tuple[str, str]]:
    """What is copied from the tree: source and destination."""
    copies = [rest.split() for word, rest in instructions() if word == "COPY"]
    return [(parts[0], parts[1]) for parts in copies if not parts[0].startswith("--from")]


def is_ignored(path: PurePath) -> bool:
    """Whether .dockerignore keeps a path of the tree from the build: the last line that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and _fits(path, pattern):
            ignored = not line.startswith("!")
    return ignored


def _fits(path: PurePath, pattern: str) -> bool:
    places = [path, *path.parents][:-1]
    if pattern.startswith("**/"):
        return any(fnmatch(place.name, pattern[3:]) for place in places)
    return any(
        len(place.parts) == pattern.count("/") + 1 and fnmatch(str(place), pattern)
        for place in places
    )


def make_image(folder: Path) -> None:
    """Put into a folder what the image's /app would hold before its last commands run."""

    def ignored(place: str, names: list[str]) -> set[str]:
        return {name for name in names if is_ignored(Path(place, name).relative_to(ROOT))}

    for source, destination in copied():
        target = folder / destination
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=ignored)
        elif not is_ignored(PurePath(source)):
            shutil.copy(ROOT / source, target)
