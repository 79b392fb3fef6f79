from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from shargain.owners.views import target_list, target_page

app_name = "owners"
urlpatterns = [
    path("quotas/", target_list, name="targets"),
    path("quotas/<int:target_id>/", target_page, name="target"),
    path(
        "login/",
        LoginView.as_view(template_name="owners/login.html", next_page="owners:targets"),
        name="login",
    ),
    path("logout/", LogoutView.as_view(next_page="owners:login"), name="logout"),
]
