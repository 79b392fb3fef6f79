import threading
from collections.abc import Iterator

import pytest
from local_site import Site

from shargain.scraping import AddressPolicy, Fetcher, Politeness


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def policy(site: Site) -> AddressPolicy:
    return AddressPolicy(allowed_hosts=frozenset({("127.0.0.1", site.server_port)}))


@pytest.fixture
def fetcher(policy: AddressPolicy) -> Iterator[Fetcher]:
    with Fetcher(policy=policy, politeness=Politeness(delay_s=0)) as one:
        yield one
