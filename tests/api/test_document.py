import re
from typing import Any

from django.contrib.staticfiles import finders


def test_the_page_of_the_document_loads_nothing_from_elsewhere(client: Any) -> None:
    page = client.get("/api/v1/docs").content.decode()
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("/static/")
        assert finders.find(address.removeprefix("/static/")), address
    assert '"url": "/api/v1/openapi.json"' in page


def test_the_document_declares_every_answer(client: Any) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    declared = {
        (method, path): set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    target = "/api/v1/targets/{target_id}"
    assert declared == {
        ("get", "/api/v1/targets"): {"200", "401", "422", "503"},
        ("get", f"{target}/quota"): {"200", "401", "404", "503"},
        ("get", f"{target}/usage"): {"200", "401", "404", "422", "503"},
        ("post", "/api/v1/batches"): {*("200", "400", "401", "411", "413", "415", "422", "503")},
        ("post", f"{target}/offers"): {
            *("200", "201", "400", "401", "404", "411", "413", "415", "422", "429", "503")
        },
    }


def test_the_document_bounds_the_batch_and_knows_the_token(client: Any) -> None:
    document = client.get("/api/v1/openapi.json").json()
    offers = document["components"]["schemas"]["BatchIn"]["properties"]["offers"]
    assert (offers["minItems"], offers["maxItems"]) == (1, 1000)
    [scheme] = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
