"""Edits by the admin, recorded with the name of who makes them."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from shargain.offers.services.edits import MAX_WHY, recorded

if TYPE_CHECKING:
    ModelAdminBase = admin.ModelAdmin[Any]
else:
    ModelAdminBase = object


class RecordedAdminMixin(ModelAdminBase):
    """Put before the ModelAdmin of quotas: every form, action and deletion that it takes is one recorded edit."""

    def reason(self, request: HttpRequest) -> str:
        """Why the edit is made, as the page's field "why" says."""
        return request.POST.get("why", "").replace("\0", "").strip()[:MAX_WHY]

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with self._recorded(request):
            return super().changeform_view(request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with self._recorded(request):
            return super().delete_view(request, *args, **kwargs)

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with self._recorded(request):
            return super().response_action(request, *args, **kwargs)

    def _recorded(self, request: HttpRequest) -> AbstractContextManager[None]:
        """Nothing for a page that is only read: it needs no transaction."""
        if request.method != "POST":
            return nullcontext()
        return recorded(f"admin {request.user.get_username()}", self.reason(request))
