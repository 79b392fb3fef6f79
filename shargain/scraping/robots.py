"""What a site's robots.txt lets us do (RFC 9309)."""

from dataclasses import dataclass

from protego import Protego

# The standard asks that at least 500 KiB be read; what lies beyond is ignored.
MAX_ROBOTS_BYTES = 500 * 1024


@dataclass(frozen=True, slots=True)
class RobotsRules:
    """The rules of one site for one user agent. `delay_s` is its Crawl-delay, 0 for none."""

    rules: Protego
    product: str
    delay_s: float

    @classmethod
    def parse(cls, text: str, product: str) -> "RobotsRules":
        rules = Protego.parse(text)
        return cls(rules, product, rules.crawl_delay(product) or 0.0)

    def allows(self, url: str) -> bool:
        return self.rules.can_fetch(url, self.product)
