"""Bulk actions on the list of quotas, and quotas as CSV: each shows what would change before it is done."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminFileFieldWidget

from shargain.console import bulk_plans, csv_io
from shargain.console.bulk_plans import VERBS, Verb, WhyForm
from shargain.console.changes import Change, Outcome, Skipped, all_quotas, digest, make
from shargain.offers.models import OfferQuota

if TYPE_CHECKING:
    ModelAdminBase = admin.ModelAdmin[Any]
else:
    ModelAdminBase = object

BULK_ACTIONS = ("bulk_extend", "bulk_raise", "bulk_close", "bulk_copy")
MAX_CHOSEN = 1000
VALID_SECONDS = 3600
"""How long what was shown may be confirmed."""
EXPORT_CHUNK = 2000
MOVED = (
    "Quotas were edited since this was shown, so nothing was done: look again at what it does now."
)
STALE = "This page is too old, or was made for somebody else: begin again."


class UploadForm(WhyForm):
    file = forms.FileField(
        label="CSV file",
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".csv,text/csv"}),
        help_text=f"At most 1 MB and {csv_io.MAX_LINES:,} lines, in UTF-8, with commas.",
        error_messages={"required": "Choose a file of at most 1 MB."},
    )
    field_order = ("file", "why")

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > csv_io.MAX_BYTES:
            raise forms.ValidationError(f"The file has {file.size:,} bytes: 1 MB is the most.")
        return file


def _action(verb: Verb) -> Callable[..., HttpResponse | None]:
    """An admin action, which only shows the verb's page."""

    @admin.action(description=f"{verb.title} ...", permissions=[verb.permission])
    def begin(
        model_admin: "BulkAdminMixin", request: HttpRequest, queryset: QuerySet[OfferQuota]
    ) -> HttpResponse | None:
        return model_admin.begin_bulk(request, verb, queryset)

    return begin


class BulkAdminMixin(ModelAdminBase):
    """Put before unfold's ModelAdmin, with `actions = BULK_ACTIONS`; each of them is confirmed first."""

    bulk_extend = _action(VERBS["extend"])
    bulk_raise = _action(VERBS["raise"])
    bulk_close = _action(VERBS["close"])
    bulk_copy = _action(VERBS["copy"])
    list_before_template = "console/bulk/tools.html"

    def get_urls(self) -> list[URLPattern]:
        views: list[tuple[str, str, Callable[..., Any]]] = [
            ("bulk/<slug:name>/", "bulk", self.bulk_view),
            ("export/", "export", self.export_view),
            ("import/", "import", self.import_view),
        ]
        own = [
            path(route, self.admin_site.admin_view(view), name=self._page_name(page))
            for route, page, view in views
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        query = request.GET.urlencode()
        export = self._page("export")
        tools = {
            "export_url": f"{export}?{query}" if query else export,
            "import_url": self._page("import") if self._may_import(request) else None,
        }
        return super().changelist_view(request, {**tools, **(extra_context or {})})

    def begin_bulk(
        self, request: HttpRequest, verb: Verb, queryset: QuerySet[OfferQuota]
    ) -> HttpResponse | None:
        """The verb's page for the chosen quotas; None, with a message, for too many."""
        ids = list(queryset.order_by().values_list("pk", flat=True)[: MAX_CHOSEN + 1])
        if len(ids) > MAX_CHOSEN:
            text = f"More than {MAX_CHOSEN:,} quotas are selected: take at most {MAX_CHOSEN:,} at a time."
            self.message_user(request, text, messages.ERROR)
            return None
        return self._bulk_page(request, verb, ids, None if verb.has_parameters else WhyForm({}))

    def bulk_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """What the verb does to the chosen quotas; does it when just that is confirmed."""
        verb = VERBS.get(name)
        permission = verb.permission if verb else "change"
        if not request.user.has_perm(f"offers.{permission}_offerquota"):
            raise PermissionDenied
        if verb is None:
            raise Http404(f"No bulk action is called {name[:40]!r}.")
        ids = _opened(request, "chosen")
        if ids is None:
            return self._begin_again(request, "changelist")
        return self._bulk_page(request, verb, ids, verb.form(request.POST))

    def export_view(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """The list as it is filtered and ordered, as CSV."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        quotas = self.get_changelist_instance(request).get_queryset(request)
        rows = quotas.select_related("target").iterator(chunk_size=EXPORT_CHUNK)
        name = f"quotas-{datetime.now(UTC):%Y%m%d-%H%M%S}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingHttpResponse(
            csv_io.export(rows), content_type="text/csv; charset=utf-8", headers=headers
        )

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """A dry run of an uploaded file; does what it showed when that is confirmed."""
        if not self._may_import(request):
            raise PermissionDenied
        if request.method != "POST":
            return self._page_of(request, "console/bulk/import.html", form=UploadForm())
        if "shown" in request.POST:
            return self._confirmed_import(request)
        form = UploadForm(request.POST, request.FILES)
        if not form.is_valid():
            return self._page_of(request, "console/bulk/import.html", form=form)
        rows, errors = csv_io.read(form.cleaned_data["file"].read())
        return self._dry_run(request, rows, errors, form.cleaned_data["why"])

    def _bulk_page(
        self, request: HttpRequest, verb: Verb, ids: list[int], form: WhyForm | None
    ) -> HttpResponse:
        shown = form is not None and form.is_valid()
        changes: list[Change] = []
        skipped: list[Skipped] = []
        note = ""
        if form is not None and shown:
            quotas = all_quotas().filter(pk__in=ids).select_related("target").order_by("pk")
            changes, skipped = bulk_plans.plan(verb, quotas, form.cleaned_data)
            if request.POST.get("confirmed"):
                if request.POST["confirmed"] == digest(changes):
                    return self._made(request, changes, form.cleaned_data["why"], skipped, verb)
                note = MOVED
        return self._page_of(
            request,
            "console/bulk/confirm.html",
            title=f"{verb.title}: {len(ids):,} quota{'' if len(ids) == 1 else 's'} selected",
            verb=verb,
            form=form or verb.form(),
            is_shown=shown,
            changes=changes,
            skipped=skipped,
            note=note,
            chosen=_sealed(request, "chosen", ids),
            digest=digest(changes),
            action_url=self._page("bulk", verb.name),
        )

    def _confirmed_import(self, request: HttpRequest) -> HttpResponse:
        shown = _opened(request, "shown")
        if shown is None:
            return self._begin_again(request, "import")
        rows = [csv_io.Row.unpacked(row) for row in shown["rows"]]
        run = csv_io.dry_run(rows)
        if run.errors or digest(run.changes) != shown["digest"]:
            return self._dry_run(request, rows, [], shown["why"], note=MOVED)
        return self._made(request, run.changes, shown["why"], [], None)

    def _dry_run(
        self,
        request: HttpRequest,
        rows: list[csv_io.Row],
        errors: list[csv_io.LineError],
        why: str,
        note: str = "",
    ) -> HttpResponse:
        run = csv_io.dry_run(rows, errors)
        packed = {
            "rows": [row.packed() for row in rows],
            "digest": digest(run.changes),
            "why": why,
        }
        may_do = run.changes and not run.errors
        return self._page_of(
            request,
            "console/bulk/dry_run.html",
            run=run,
            changes=run.changes,
            why=why,
            note=note,
            shown=_sealed(request, "shown", packed) if may_do else None,
        )

    def _made(
        self,
        request: HttpRequest,
        changes: Any,
        why: str,
        skipped: list[Skipped],
        verb: Verb | None,
    ) -> HttpResponse:
        """Makes the changes, and answers with what came of each: a reload of it does nothing twice."""
        outcome = make(changes, f"admin {request.user.get_username()}", why)
        self._log(request, outcome, verb)
        return self._page_of(
            request,
            "console/bulk/made.html",
            title="Done" if not outcome.failed else "Not all was done",
            outcome=outcome,
            skipped=skipped,
        )

    def _log(self, request: HttpRequest, outcome: Outcome, verb: Verb | None) -> None:
        user = request.user.pk
        assert user is not None
        how = f"{verb.title} (bulk action)." if verb else "Imported."
        for flag, is_new in ((ADDITION, True), (CHANGE, False)):
            ids = [pk for change, pk in outcome.made if _is_new(change) == is_new]
            quotas = all_quotas().filter(pk__in=ids)
            if ids:
                LogEntry.objects.log_actions(user, quotas, flag, change_message=how)

    def _begin_again(self, request: HttpRequest, page: str) -> HttpResponse:
        self.message_user(request, STALE, messages.ERROR)
        return HttpResponseRedirect(self._page(page))

    def _page_of(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        shared = {
            **self.admin_site.each_context(request),
            "title": "Import quotas from CSV",
            "opts": self.opts,
            "media": self.media,
            "back_url": self._page("changelist"),
            "import_url": self._page("import"),
            "columns": csv_io.COLUMNS,
        }
        return TemplateResponse(request, template, {**shared, **context})

    def _may_import(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request) and self.has_change_permission(request)

    def _page_name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _page(self, page: str, *args: object) -> str:
        return reverse(f"{self.admin_site.name}:{self._page_name(page)}", args=args)


def _is_new(change: Change) -> bool:
    return change.before is None


def _sealed(request: HttpRequest, name: str, value: Any) -> str:
    """A value for a hidden field of that name, of which nobody else and no other field can make use."""
    return signing.dumps([request.user.pk, value], salt=f"{__name__}.{name}", compress=True)


def _opened(request: HttpRequest, name: str) -> Any:
    """What was sealed into a field for this user; None for anything else."""
    sealed, salt = request.POST.get(name, ""), f"{__name__}.{name}"
    try:
        user, value = signing.loads(sealed, salt=salt, max_age=VALID_SECONDS)
    except signing.BadSignature:
        return None
    return value if user == request.user.pk else None
