from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "shargain.console"
    label = "console"
