from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "shargain.usage"

    def ready(self) -> None:
        from shargain.usage import receivers

        receivers.connect()
