"""Django settings: every value that differs between installations comes from the environment.

`README.md` lists the variables. Nothing secret has a default outside of DEBUG.
"""

import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from environs import Env
from kombu import Queue

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
]

MIDDLEWARE = [
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
QUOTA_REDIS = {"ALIAS": "quotas", "NAMESPACE": "shargain", "BROKER_URL": CELERY_BROKER_URL}

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
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("DJANGO_BEHIND_PROXY", False) else None
)

# Nothing takes files, and anybody may send them to the login page: none is to reach the disk.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "record": {
            "()": "shargain.printable.RecordFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s",
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "record"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
}

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
CELERY_TASK_ROUTES = {"quota_redis.*": {"queue": "quotas"}}
