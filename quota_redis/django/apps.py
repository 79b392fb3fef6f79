from django.apps import AppConfig


class QuotaRedisConfig(AppConfig):
    name = "quota_redis.django"
    label = "quota_redis"
    verbose_name = "Quota ledger"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from quota_redis.django import checks, signals

        checks.register()
        signals.connect()
