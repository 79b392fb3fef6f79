"""The `RateLimit` and `RateLimit-Policy` fields of draft-ietf-httpapi-ratelimit-headers-11.

The draft's quota unit is one offer here, not one request: its registry has no such unit, so `qu`
is left out. The partition key `pk` is the target's id, as each target has a quota of its own.
"""

import math
from base64 import b64encode
from datetime import datetime, timedelta

from shargain.offers.services.quota import QuotaInfo

POLICY = "offers"


def rate_limit_fields(quota: QuotaInfo | None, now: datetime) -> dict[str, str]:
    """Return the two fields for a limited quota, nothing for an unlimited one or none."""
    if quota is None or quota.max_offers_per_period is None:
        return {}
    key = b64encode(str(quota.target_id).encode()).decode()
    policy, limit = f'"{POLICY}";q={quota.max_offers_per_period}', f'"{POLICY}";r={quota.remaining}'
    if quota.period_end is not None:
        policy += f";w={max(1, _seconds(quota.period_end - quota.period_start))}"
        limit += f";t={_seconds(quota.period_end - now)}"
    return {"RateLimit-Policy": f"{policy};pk=:{key}:", "RateLimit": f"{limit};pk=:{key}:"}


def retry_after(quota: QuotaInfo | None, now: datetime) -> dict[str, str]:
    """Return `Retry-After`, the end of the period, where there is one."""
    if quota is None or quota.period_end is None:
        return {}
    return {"Retry-After": str(_seconds(quota.period_end - now))}


def _seconds(span: timedelta) -> int:
    # Upwards, so that who waits as long as told does not come a fraction too early.
    return max(0, math.ceil(span.total_seconds()))
