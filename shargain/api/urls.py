from django.urls import path

from shargain.api.api import api
from shargain.api.health import livez, readyz

urlpatterns = [
    path("livez", livez, name="livez"),
    path("readyz", readyz, name="readyz"),
    path("api/v1/", api.urls),
]
