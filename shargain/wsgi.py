import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")

application = get_wsgi_application()

from shargain.offers.services.quota import QuotaService  # noqa: E402  needs the apps to be loaded

QuotaService().refuse_to_start()
