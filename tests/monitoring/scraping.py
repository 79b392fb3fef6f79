"""Reading metrics as Prometheus does."""

from collections.abc import Mapping
from typing import TypeAlias
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families

TOKEN = "a token of the tests"
HOST = "shargain.test"
Samples: TypeAlias = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self._samples, f"{key} is there twice"
                self._samples[key] = sample.value

    def __getitem__(self, name: str) -> float:
        """The sum over all labels; KeyError where there is no such sample."""
        return self.sum(name)

    def sum(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        found = [v for (n, own), v in self._samples.items() if n == name and wanted <= set(own)]
        if not found:
            raise KeyError(f"{name} {labels}")
        return sum(found)

    def has(self, name: str) -> bool:
        return any(n == name for n, _ in self._samples)

    def values(self, name: str, label: str) -> set[str]:
        """The values that a label of a metric has."""
        return {dict(own).get(label, "") for n, own in self._samples if n == name}


def scrape(port: int, token: str = TOKEN) -> Scrape:
    headers = {"Authorization": f"Bearer {token}", "Host": HOST}
    with urlopen(Request(f"http://127.0.0.1:{port}/metrics", headers=headers), timeout=20) as got:
        return Scrape(got.read().decode())
