"""What can go wrong while a page is fetched.

except (SiteUnavailable, ScrapeTimeout):  # worth another try later
except ScrapeError:                   # will fail again until the target or the site changes
"""


class ScrapeError(Exception):
    """A page could not be had. Every error of this package is one of these."""


class ForbiddenAddress(ScrapeError):  # noqa: N818
    """The address must not be fetched: not public, not http(s), or a closed port."""


class RobotsDisallowed(ScrapeError):  # noqa: N818
    """The site's robots.txt does not let our user agent fetch this address."""


class TooLarge(ScrapeError):  # noqa: N818
    """The page, or all pages together, are larger than the limits allow."""


class BadResponse(ScrapeError):  # noqa: N818
    """The site answered with something that is not a readable page."""


class SiteUnavailable(ScrapeError):  # noqa: N818
    """The site could not be reached, broke off, or asked to be left alone for now."""


class ScrapeTimeout(ScrapeError):  # noqa: N818
    """The site, or the crawl as a whole, took longer than the limits allow."""
