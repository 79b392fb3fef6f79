"""Batches that could not be created, to be looked at and tried again."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from shargain.offers.admin.parts import ReadOnlyAdmin, pretty_json
from shargain.offers.models import FailedBatch
from shargain.offers.services import failed_batches
from shargain.offers.services.errors import ServiceError

MAX_SHOWN_ERROR = 120
MAX_RETRIED = 1000


@admin.register(FailedBatch)
class FailedBatchAdmin(ReadOnlyAdmin):
    list_display = ("batch_id", "target_id", "attempts", "failed_at", "reason")
    search_fields = ("batch_id", "=target_id", "error")
    ordering = ("-pk",)
    fields = ("batch_id", "target_id", "attempts", "failed_at", "error", "content")
    actions = ("try_again",)

    class Media:
        css = {"all": ("offers/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[FailedBatch]:
        # A payload may be megabytes: only the page of one batch reads it.
        return super().get_queryset(request).defer("payload")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("offers.change_failedbatch")

    @admin.action(description="Try selected batches again", permissions=["retry"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[FailedBatch]) -> None:
        batches = list(queryset.values_list("batch_id", flat=True)[: MAX_RETRIED + 1])
        if len(batches) > MAX_RETRIED:
            message = f"Too many are selected: try at most {MAX_RETRIED:,} batches at a time."
            self.message_user(request, message, messages.ERROR)
            return
        try:
            sent = failed_batches.retry(batches)
        except ServiceError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, f"Sent to the workers again: {sent}.")

    @admin.display(description="error")
    def reason(self, batch: FailedBatch) -> str:
        return Truncator(batch.error).chars(MAX_SHOWN_ERROR)

    @admin.display(description="payload")
    def content(self, batch: FailedBatch) -> SafeString:
        return pretty_json(batch.payload)
