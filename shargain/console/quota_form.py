"""The form of a quota: it shows what an edit would do, and asks again before a dangerous one."""

from datetime import datetime
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from shargain.offers.services.edits import MAX_WHY
from shargain.offers.services.errors import InvalidQuota, UnknownQuota, UnknownTarget
from shargain.offers.services.quota import Preview, QuotaService

PREVIEW = "_preview"
CONFIRMED = "confirmed"
_MOMENTS = ("period_start", "period_end")
_VALUES = ("max_offers_per_period", *_MOMENTS)


class PreviewForm(forms.ModelForm):
    """A form that is held back, without an error, until its edit may be saved.

    It is held back where a preview was asked for, and where the edit is dangerous and these very values were not
    confirmed: `preview` then says what it would do.
    """

    why = forms.CharField(
        required=False,
        max_length=MAX_WHY,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Kept with the edit, for who asks later.",
    )
    preview: Preview | None = None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name in _MOMENTS:
            if name in cleaned:
                cleaned[name] = self._unless_untouched(name, cleaned[name])
        if not self.errors and self._is_edit():
            self._look_ahead(cleaned)
        return cleaned

    def is_valid(self) -> bool:
        return super().is_valid() and not self.is_held_back

    @property
    def is_held_back(self) -> bool:
        if self.preview is None:
            return False
        return PREVIEW in self.data or self.needs_confirmation

    @property
    def needs_confirmation(self) -> bool:
        if self.preview is None or not self.preview.is_dangerous:
            return False
        return bool(self.data.get(CONFIRMED) != self.token)

    @property
    def token(self) -> str:
        """The values that were previewed; sent back, it says that these and no others are meant."""
        return " ".join(_written(self.cleaned_data.get(name)) for name in _VALUES)

    def _is_edit(self) -> bool:
        return PREVIEW in self.data or bool(set(self.changed_data) - {"why"})

    def _unless_untouched(self, name: str, value: datetime | None) -> datetime | None:
        """The form's seconds as they were, with the microseconds that it does not show."""
        before = self.initial.get(name)
        is_same = before is not None and before.replace(microsecond=0) == value
        return before if is_same else value

    def _look_ahead(self, cleaned: dict[str, Any]) -> None:
        target = cleaned.get("target") or self.instance.target
        try:
            self.preview = QuotaService().preview_edit(
                self.instance.pk, target.pk, **{name: cleaned[name] for name in _VALUES}
            )
        except InvalidQuota as error:
            self.add_error(error.field if error.field in self.fields else None, str(error))
        except (UnknownQuota, UnknownTarget) as error:
            self.add_error(None, str(error))


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
