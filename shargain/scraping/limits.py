"""How much one crawl may take, and how considerate it is."""

import math
import time
from dataclasses import dataclass, field, fields

from shargain.scraping.errors import ScrapeTimeout

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeLimits:
    """The most that one crawl may take. Bytes are counted after decompression.

    Raises ValueError for a limit that is not above zero.
    """

    max_pages: int = 50
    max_page_bytes: int = 4 * MIB
    max_total_bytes: int = 64 * MIB
    max_redirects: int = 5
    max_offers_per_page: int = 1_000
    max_json_ld_chars: int = 2 * MIB
    max_nesting: int = 16
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    page_timeout_s: float = 60.0
    total_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{limit.name} is {value!r}: give a finite number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Politeness:
    """Who we say we are, and how long a host is left alone between two pages.

    A Crawl-delay in robots.txt lengthens `delay_s`, up to `max_delay_s`. The delay holds for one
    `Fetcher`: two workers on one host each keep their own.
    Raises ValueError for a user agent that names no product and for delays out of order.
    """

    user_agent: str = "shargain/1.0 (classified ads collector)"
    delay_s: float = 1.0
    max_delay_s: float = 30.0

    def __post_init__(self) -> None:
        if not (
            self.product.strip() and self.user_agent.isascii() and self.user_agent.isprintable()
        ):
            raise ValueError(
                f"user_agent is {self.user_agent!r}: start it with a name, in plain ASCII, "
                "such as 'shargain/1.0'"
            )
        if not 0 <= self.delay_s <= self.max_delay_s < math.inf:
            raise ValueError(
                f"delay_s is {self.delay_s!r} and max_delay_s {self.max_delay_s!r}: "
                "give seconds with 0 <= delay_s <= max_delay_s"
            )

    @property
    def product(self) -> str:
        """The name that robots.txt is searched for."""
        return self.user_agent.partition("/")[0]


@dataclass(slots=True)
class Budget:
    """What is left of the limits of one crawl under way."""

    limits: ScrapeLimits
    bytes_left: int = field(init=False)
    ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.bytes_left = self.limits.max_total_bytes
        self.ends_at = time.monotonic() + self.limits.total_timeout_s

    def page_deadline(self) -> float:
        """Until when a request that starts now may take, on the monotonic clock.

        Raises ScrapeTimeout when the crawl's time is up.
        """
        now = time.monotonic()
        if now >= self.ends_at:
            raise ScrapeTimeout(f"the crawl took more than {self.limits.total_timeout_s:g} s")
        return min(self.ends_at, now + self.limits.page_timeout_s)
