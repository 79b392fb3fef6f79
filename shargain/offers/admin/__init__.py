"""The admin of what shargain collects and of what limits it, a module a page.

Quotas are read and edited through `QuotaService`: what the pages show is live, and an edit holds from its commit.
"""

from shargain.offers.admin.failed_batches import FailedBatchAdmin
from shargain.offers.admin.offers import OfferAdmin
from shargain.offers.admin.parts import State, with_state
from shargain.offers.admin.quotas import OfferQuotaAdmin
from shargain.offers.admin.targets import ScrapingTargetAdmin

__all__ = [
    "FailedBatchAdmin",
    "OfferAdmin",
    "OfferQuotaAdmin",
    "ScrapingTargetAdmin",
    "State",
    "with_state",
]
