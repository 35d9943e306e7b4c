"""Everything the controller tells Prometheus, declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LEADING = Gauge("trainyard_controller_leading", "1 while this controller is the active one.")
TICKS = Counter("trainyard_controller_ticks_total", "Rounds of a loop, by how they ended.", ("loop", "state"))
DISPATCHED = Counter("trainyard_dispatched_messages_total", "Messages sent to workers.", ("queue",))
REAPED = Counter("trainyard_reaped_leases_total", "Leases of jobs that ran out, by the job's next state.", ("state",))
COLLECTED = Counter("trainyard_collected_objects_total", "Stored prefixes removed, by what they were.", ("kind",))

JOBS = Gauge("trainyard_jobs", "Jobs by state.", ("state",))
QUEUED = Gauge("trainyard_queued_jobs", "Jobs that wait, by queue.", ("queue",))
RUNNING = Gauge("trainyard_running_jobs", "Jobs that run, by queue.", ("queue",))
QUEUE_AGE = Gauge("trainyard_queue_age_seconds", "Age of the oldest waiting job, by queue.", ("queue",))
SILENCE = Gauge(
    "trainyard_job_silence_seconds", "Time since the quietest running job last told anything, by queue.", ("queue",)
)
DEPLOYMENTS = Gauge("trainyard_deployments", "Deployments by state.", ("state",))
UNREADY_AGE = Gauge(
    "trainyard_deployment_unready_seconds",
    "Time since the last change of the oldest deployment that should answer and does not yet; 0: there is none.",
)
WORKERS = Gauge(
    "trainyard_workers", "Workers heard of within the hour, by state; one that ended in order is none.", ("state",)
)
SLOTS = Gauge("trainyard_worker_slots", "Slots of live workers, by queue.", ("queue",))

FIGURES = (JOBS, QUEUED, RUNNING, QUEUE_AGE, SILENCE, DEPLOYMENTS, WORKERS, SLOTS)
