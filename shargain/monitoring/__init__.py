"""What Prometheus is told: metrics of web, worker and beat.

A role (web with its processes, a worker with its children) counts into a directory of its own, which is made
when it starts and goes with it. Nothing here may stop the work that it watches. prometheus_client decides when
it is imported whether it counts there, so the modules that import it are imported late.
"""
