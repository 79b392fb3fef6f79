from django.apps import AppConfig


class AlertsConfig(AppConfig):
    name = "shargain.alerts"

    def ready(self) -> None:
        from shargain.alerts import receivers

        receivers.connect()
