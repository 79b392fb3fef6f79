FROM python:3.11.15-slim-trixie AS build
WORKDIR /build
COPY requirements/production.txt ./
# The lock names every package with its hash, so nothing is resolved and no package runs a build of its own.
RUN python -m venv /venv \
    && /venv/bin/pip install --disable-pip-version-check --no-cache-dir \
        --require-hashes --no-deps --only-binary :all: -r production.txt

FROM python:3.11.15-slim-trixie
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_STATIC_ROOT=/app/static
RUN groupadd --system --gid 10001 shargain \
    && useradd --system --uid 10001 --gid shargain --no-create-home --shell /usr/sbin/nologin shargain
COPY --from=build /venv /venv
WORKDIR /app
COPY manage.py ./
COPY scripts/lua scripts/lua
COPY quota_redis quota_redis
COPY shargain shargain
RUN python manage.py collectstatic --noinput
# The code belongs to root: what runs cannot change it.
USER 10001:10001
EXPOSE 8000
CMD ["gunicorn", "shargain.wsgi", "--config=python:shargain.monitoring.web_server", "--bind=0.0.0.0:8000", "--logger-class=shargain.weblog.RecordLogger"]
