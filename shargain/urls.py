from django.contrib import admin
from django.urls import include, path

admin.site.site_title = admin.site.site_header = "shargain"
admin.site.index_title = "Targets, offers and quotas"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("shargain.api.urls")),
]
