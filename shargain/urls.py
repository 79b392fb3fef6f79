from django.contrib import admin
from django.urls import include, path

from shargain.monitoring.views import metrics

admin.site.site_title = admin.site.site_header = "shargain"
admin.site.index_title = "Targets, offers and quotas"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("metrics", metrics, name="metrics"),
    path("", include("shargain.owners.urls")),
    path("", include("shargain.api.urls")),
]
