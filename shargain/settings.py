"""Django settings: every value that differs between installations comes from the environment.

`README.md` lists the variables. Nothing secret has a default outside of DEBUG.
"""

import secrets
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from environs import Env
from kombu import Queue

from shargain.alerts.roles import percents
from shargain.console.theme import asset
from shargain.logs import FORMATS
from shargain.monitoring.access import check_access
from shargain.usage.retention import retention

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()

DEBUG = env.bool("DJANGO_DEBUG", False)
SECRET_KEY = env.str("DJANGO_SECRET_KEY", "")
if not SECRET_KEY:
    # Sessions that end with the process are better than a key that everybody can read in the tree.
    SECRET_KEY = secrets.token_urlsafe(50)
ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("DJANGO_CSRF_TRUSTED_ORIGINS", [])

INSTALLED_APPS = [
    "shargain.console",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "ninja",
    "quota_redis.django",
    "shargain.offers",
    "shargain.api",
    "shargain.usage",
    "shargain.owners",
    "shargain.plans",
    "shargain.alerts",
]

MIDDLEWARE = [
    "shargain.monitoring.middleware.MetricsMiddleware",
    "shargain.api.middleware.ProblemMiddleware",
    "shargain.middleware.ContentSecurityPolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "shargain.console.middleware.OutageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "shargain.urls"
WSGI_APPLICATION = "shargain.wsgi.application"

DATABASES = {
    "default": env.dj_db_url(
        "DATABASE_URL",
        "postgresql://shargain@127.0.0.1:5432/shargain",
        conn_max_age=60,
        conn_health_checks=True,
    ),
}
# A server that hangs must not take every worker and health check with it.
DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:6379/0")
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", "redis://127.0.0.1:6380/0")
QUOTA_TIMEOUT_SECONDS = env.float("QUOTA_TIMEOUT_SECONDS", 0.05)
if not 0.001 <= QUOTA_TIMEOUT_SECONDS <= 10:
    raise ImproperlyConfigured(
        f"QUOTA_TIMEOUT_SECONDS is {QUOTA_TIMEOUT_SECONDS}: give seconds from 0.001 to 10."
    )

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "quotas": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {
            "SOCKET_CONNECT_TIMEOUT": QUOTA_TIMEOUT_SECONDS,
            "SOCKET_TIMEOUT": QUOTA_TIMEOUT_SECONDS,
        },
    },
}
QUOTA_REDIS: dict[str, Any] = {
    "ALIAS": "quotas",
    "NAMESPACE": "shargain",
    "BROKER_URL": CELERY_BROKER_URL,
    "STOCK_SIZE": env.int("QUOTA_STOCK_SIZE", 1000),
}

UNFOLD = {
    "SITE_TITLE": "shargain",
    "SITE_HEADER": "shargain",
    "SITE_SUBHEADER": "targets, offers and quotas",
    "SHOW_BACK_BUTTON": True,
    "SIDEBAR": {"show_search": True, "show_all_applications": False},
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": asset("console/favicon.svg")}
    ],
    "STYLES": [asset(f"console/{name}.css") for name in ("theme", "console", "overview")],
    "GLOBAL_CALLBACK": "shargain.console.theme.without_inline_style",
    "DASHBOARD_CALLBACK": "shargain.console.overview.dashboard",
}

USAGE_RETENTION = retention(
    minutes=env.int("USAGE_MINUTES_KEPT_DAYS", 2),
    hours=env.int("USAGE_HOURS_KEPT_DAYS", 90),
    days=env.int("USAGE_DAYS_KEPT_DAYS", 1826),
)

ALERT_PERCENTS = percents(env.list("ALERT_PERCENTS", [80, 100], subcast=int))
ALERT_PREDICTED = env.bool("ALERT_PREDICTED", True)
# (host, port) pairs that webhooks may reach wherever they lead, over http too: for tests, never in production.
ALERT_WEBHOOK_HOSTS: list[tuple[str, int]] = []
# Without a sender no e-mail leaves.
ALERT_EMAIL_FROM = env.str("ALERT_EMAIL_FROM", "")
EMAIL_HOST = env.str("EMAIL_HOST", "localhost")
EMAIL_PORT = env.int("EMAIL_PORT", 25)
EMAIL_HOST_USER = env.str("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.str("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = env.bool("EMAIL_USE_TLS", False)
EMAIL_TIMEOUT = 10

LOGIN_REDIRECT_URL = "admin:index"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
STATIC_URL = "static/"
STATIC_ROOT = env.str(
    "DJANGO_STATIC_ROOT", None
)  # where collectstatic puts files; none serves them from the apps
WHITENOISE_USE_FINDERS = True

SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("DJANGO_HTTPS", False)
SECURE_SSL_REDIRECT = env.bool("DJANGO_HTTPS", False)
SECURE_HSTS_SECONDS = 31_536_000 if env.bool("DJANGO_HTTPS", False) else 0
# Whether all subdomains have certificates, and whether browsers may learn of the domain for good, is
# for its owner to say, in the proxy that holds the certificate.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
# Prometheus asks from the inside, where nobody sets X-Forwarded-Proto.
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("DJANGO_BEHIND_PROXY", False) else None
)

# Staff import small files, and anybody may send large ones to the login page: none is to reach the disk.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

LOG_FORMAT = env.str("LOG_FORMAT", "text")
if LOG_FORMAT not in FORMATS:
    raise ImproperlyConfigured(f"LOG_FORMAT is {LOG_FORMAT!r}: give one of {', '.join(FORMATS)}.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"record": {"()": "shargain.logs.formatter", "kind": LOG_FORMAT}},
    "filters": {"fields": {"()": "shargain.logs.FieldsFilter"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "record",
            "filters": ["fields"],
        }
    },
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
}

# Without a token web shows no metrics; workers and beat show theirs at a port, to their own host alone.
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
METRICS_PORT = env.int("METRICS_PORT", 0)
METRICS_ADDRESS = env.str("METRICS_ADDRESS", "127.0.0.1")
check_access(METRICS_ADDRESS, METRICS_PORT, METRICS_TOKEN)

CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Longer than any task and its pauses may last, or the broker would deliver it a second time meanwhile.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 600}
CELERY_IMPORTS = ["quota_redis.celery"]
# A backlog of batches must not hold up the tasks that keep quotas in step. A worker serves both queues in turn.
CELERY_TASK_QUEUES = [Queue("celery"), Queue("quotas")]
CELERY_TASK_ROUTES = {
    "quota_redis.*": {"queue": "quotas"},
    "shargain.usage.*": {"queue": "quotas"},
    "shargain.plans.*": {"queue": "quotas"},
    "shargain.alerts.evaluate": {"queue": "quotas"},
}
