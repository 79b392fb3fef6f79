"""The admin of plans, of who has them, and of granted units, a module a page."""

from shargain.plans.admin.corrections import CorrectionAdmin
from shargain.plans.admin.plans import PlanAdmin
from shargain.plans.admin.subscriptions import SubscriptionAdmin

__all__ = ["CorrectionAdmin", "PlanAdmin", "SubscriptionAdmin"]
