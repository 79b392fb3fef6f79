"""Quotas for Django models: put `quota_redis.django` into INSTALLED_APPS and QUOTA_REDIS into the settings."""
