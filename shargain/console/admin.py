"""Users and groups, with forms that look like the others."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

# Importing Django's module has registered its own.
admin.site.unregister([User, Group])


@admin.register(User)
class ConsoleUserAdmin(UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class ConsoleGroupAdmin(GroupAdmin, ModelAdmin):
    pass
