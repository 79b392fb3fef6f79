"""What beat sends: every entry is a task that there is, and those of plans and alerts do their work."""

from collections.abc import Callable

from shargain.alerts.tasks import alerts_deliver, alerts_evaluate
from shargain.celery import app
from shargain.offers.models import ScrapingTarget
from shargain.plans.models import Plan
from shargain.plans.subscriptions import apply_plan
from shargain.plans.tasks import plans_renew


def test_every_entry_of_beat_is_a_task() -> None:
    app.loader.import_default_modules()
    names = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert {"shargain.plans.renew", "shargain.alerts.evaluate", "shargain.alerts.deliver"} <= names
    assert names <= set(app.tasks)


def test_what_keeps_quotas_in_step_does_not_wait_behind_batches_nor_webhooks() -> None:
    routes = {name: app.amqp.router.route({}, name)["queue"].name for name in (
        "shargain.plans.renew", "shargain.alerts.evaluate")}  # fmt: skip
    assert set(routes.values()) == {"quotas"}
    assert "queue" not in app.amqp.router.route({}, "shargain.alerts.deliver") or (
        app.amqp.router.route({}, "shargain.alerts.deliver")["queue"].name == "celery"
    )


def test_the_tasks_run(new_target: Callable[[], ScrapingTarget], plan: Plan) -> None:
    targets = [new_target() for _ in range(21)]
    apply_plan(plan, [target.pk for target in targets], who="test")
    plans_renew()
    alerts_evaluate()
    alerts_deliver()
    assert all(target.quotas.count() == 2 for target in targets)
