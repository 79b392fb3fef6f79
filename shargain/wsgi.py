import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shargain.settings")

application = get_wsgi_application()

# These need the apps to be loaded.
from shargain.monitoring import roles  # noqa: E402
from shargain.offers.services.quota import QuotaService  # noqa: E402
from shargain.usage import roles as usage_roles  # noqa: E402

QuotaService().refuse_to_start()
roles.start_web()
usage_roles.start()
