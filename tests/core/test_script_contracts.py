"""Every script's header, its bindings and the calls that Python makes agree."""

import ast
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from quota_redis import Counters, Quota, scripts
from quota_redis.connection import Connection
from quota_redis.types import MAX_LIMIT, MAX_RESERVE

PACKAGE = Path(scripts.__file__).parent
SOURCES = {name: (scripts.folder() / f"{name}.lua").read_text() for name in scripts.NAMES}
CODE = {
    name: "\n".join(re.sub(r"--.*", "", line) for line in text.splitlines())
    for name, text in SOURCES.items()
}
START = datetime(2020, 1, 1, tzinfo=UTC)
READ_COMMANDS = {"HGETALL", "HGET", "HMGET", "GET", "TIME"}


@dataclass(frozen=True)
class Contract:
    keys: list[str]
    more_keys: str | None
    """The name of the keys that follow the named ones, in any number."""
    args: list[str]
    rest: str | None
    """The same of the arguments."""


def _names(header: str, section: str) -> list[str]:
    """The names that a section of the header lists: lines indented by exactly three blanks."""
    block = re.search(rf"^-- {section}$\n((?:--   .*\n)*)", header, re.MULTILINE)
    assert block, f"no section {section}"
    return re.findall(r"^--   (\S+)", block[1], re.MULTILINE)


def contract_of(name: str) -> Contract:
    header = "".join(re.findall(r"^--.*\n", SOURCES[name], re.MULTILINE))
    return Contract(*_split(_names(header, "KEYS")), *_split(_names(header, "ARGV")))


def _split(names: list[str]) -> tuple[list[str], str | None]:
    if names and names[-1].endswith("..."):
        return names[:-1], names[-1].removesuffix("...")
    return names, None


def bound(name: str, table: str) -> dict[int, str]:
    """What a script binds to local names: position in KEYS or ARGV to name; 0 is the whole table."""
    found: dict[int, str] = {}
    for names, values in re.findall(r"^local ([\w, ]+) = (.*)$", CODE[name], re.MULTILINE):
        if table not in values:
            continue
        parts = re.split(r",\s*(?![^(]*\))", values.strip())
        for local, value in zip(names.split(", "), parts, strict=True):
            match = re.fullmatch(rf"(?:tonumber\()?{table}(?:\[(\d+)\])?\)?", value.strip())
            assert match, f"{name}: {value!r} is no plain binding"
            found[int(match[1] or 0)] = local
    return found


def test_the_list_of_scripts_is_the_folder() -> None:
    files = {Path(str(file)).stem for file in scripts.folder().iterdir() if file.is_file()}
    assert files == set(scripts.NAMES)


@pytest.mark.parametrize("name", scripts.NAMES)
class TestContract:
    def test_header_opens_the_file_with_its_name_and_says_all_sections(self, name: str) -> None:
        lines = SOURCES[name].splitlines()
        assert lines[0].startswith(f"-- {name}: ")
        header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("--"))]
        assert [line for line in header if line in ("-- KEYS", "-- ARGV", "-- Returns")] == [
            "-- KEYS",
            "-- ARGV",
            "-- Returns",
        ]
        assert header[-1] != "-- Returns"

    def test_keys_are_bound_as_the_header_lists_them(self, name: str) -> None:
        contract = contract_of(name)
        wanted = dict(enumerate(contract.keys, start=1))
        if contract.more_keys:
            wanted[0] = contract.more_keys
        assert bound(name, "KEYS") == wanted

    def test_arguments_are_bound_as_the_header_lists_them(self, name: str) -> None:
        contract = contract_of(name)
        wanted = dict(enumerate(contract.args, start=1))
        if contract.rest:
            wanted[0] = contract.rest
        assert bound(name, "ARGV") == wanted

    def test_keys_and_arguments_are_touched_nowhere_else(self, name: str) -> None:
        lines = [line for line in CODE[name].splitlines() if re.search(r"\b(KEYS|ARGV)\b", line)]
        assert 1 <= len(lines) <= 2
        assert all(re.match(r"local [\w, ]+ = ", line) for line in lines)

    def test_every_bound_name_is_used(self, name: str) -> None:
        for local in {**bound(name, "KEYS")}.values():
            assert len(re.findall(rf"\b{local}\b", CODE[name])) > 1, f"{local} is not used"
        for local in bound(name, "ARGV").values():
            assert len(re.findall(rf"\b{local}\b", CODE[name])) > 1, f"{local} is not used"

    def test_what_is_sent_has_its_includes(self, name: str) -> None:
        assert "-- include:" not in scripts.load(name).text


@pytest.mark.parametrize("name", ["snapshot", "snapshots"])
def test_readers_cannot_write(name: str) -> None:
    commands = set(re.findall(r"redis\.p?call\('(\w+)'", scripts.load(name).text))
    assert commands
    assert commands <= READ_COMMANDS


def test_includes_name_no_key_and_write_nothing() -> None:
    for file in (scripts.folder() / "include").iterdir():
        text = re.sub(r"--.*", "", file.read_text())
        assert not re.search(r"\b(KEYS|ARGV)\b", text)
        assert set(re.findall(r"redis\.call\('(\w+)'", text)) <= READ_COMMANDS


class Recorder(Connection):
    """A connection that notes how many keys and arguments each script got."""

    def __init__(self, client: "redis.Redis") -> None:
        super().__init__(client)
        self.calls: list[tuple[str, int, int]] = []

    def send(self, call):  # type: ignore[no-untyped-def]
        self.calls.append((call.script.name, len(call.keys), len(call.args)))
        return super().send(call)


def test_counters_send_what_the_scripts_list(counters: Counters, client: "redis.Redis") -> None:
    counters.connection = recorder = Recorder(client)
    counters.define("team:7", Quota(id=1, limit=5, start=START))
    counters.consume("team:7")
    reservation = counters.reserve("team:7", 2)
    counters.settle(reservation, 1)  # type: ignore[arg-type]
    counters.snapshot("team:7")
    sent = dict.fromkeys(recorder.calls)
    assert {name for name, _, _ in sent} == {"define", "consume", "reserve", "settle", "snapshot"}
    for name, keys, args in sent:
        contract = contract_of(name)
        assert keys == len(contract.keys), name
        assert args == len(contract.args) or (contract.rest and args > len(contract.args)), name


def test_absorb_is_sent_two_keys_and_the_rest_as_values() -> None:
    """What the ledger's modules send; that it works is proved on real servers there."""
    assert _called("absorb", "run_many") == ["absorb"]
    contract = contract_of("absorb")
    assert (len(contract.keys), contract.more_keys) == (2, None)
    assert contract.rest is not None


@pytest.mark.parametrize(("module", "name"), [("absorb", "load"), ("sync", "unmark")])
def test_scripts_for_many_are_sent_the_set_then_hashes(module: str, name: str) -> None:
    assert _called(module, "run") == [name]
    contract = contract_of(name)
    assert (contract.keys, contract.more_keys) == (["changed_key"], "subject_keys")
    assert contract.rest is not None


def _called(module: str, function: str) -> list[object]:
    """The names of scripts that a module of the ledger calls by this function."""
    tree = ast.parse((PACKAGE / "postgres" / f"{module}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        arg.value
        for call in calls
        if function in (getattr(call.func, "attr", None), getattr(call.func, "id", None))
        for arg in call.args
        if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
    ]


def test_every_script_has_a_caller() -> None:
    code = "".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    for name in scripts.NAMES:
        assert re.search(rf'(run|run_many|post|call|load)\((counters, )?"{name}"', code), name


def test_bounds_in_the_scripts_are_those_of_python() -> None:
    assert f"amount < 1 or amount > {MAX_RESERVE} then" in SOURCES["reserve"]
    assert f"amount < 1 or amount > {MAX_LIMIT} then" in SOURCES["consume"]


def test_the_end_of_slots_is_one_number_in_lua_sql_and_python() -> None:
    from quota_redis.postgres.schema import schema_sql
    from quota_redis.ranges import SLOT_END

    assert f"LAST_SLOT = {SLOT_END - 1} " in scripts.load("define").text
    assert set(re.findall(r"\b\d{16}\b", schema_sql())) == {str(SLOT_END)}
