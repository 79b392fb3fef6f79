from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "shargain.api"
    verbose_name = "API"
