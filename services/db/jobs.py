"""Everything a caller does with jobs, by one name: `jobs.insert`, `jobs.claim`, `jobs.finish`, ...

The functions live in modules by topic; this one only gathers them. All take an open Session: one
transaction of `Database.write()` for those that change something, `Database.read()` for the others.
"""

from services.db.checkpoints import Checkpoint, NewCheckpoint, commit_checkpoint
from services.db.control import cancel, pause, resume
from services.db.deletion import delete
from services.db.events import append_event, append_events, events_after
from services.db.job_records import Attempt, Event, Failure, Job, Lease, NewJob, QueueFigures, Reaped
from services.db.job_rows import get, insert, page, queue_figures
from services.db.leases import (
    claim,
    claim_next,
    desired,
    let_run_out,
    list_attempts,
    open_attempts,
    record_attempt,
    renew,
)
from services.db.models import ModelVersion, NewModelVersion
from services.db.preemption import preempt
from services.db.schedule import dispatch
from services.db.transitions import finish, reap, requeue

__all__ = [
    "Attempt",
    "Checkpoint",
    "Event",
    "Failure",
    "Job",
    "Lease",
    "ModelVersion",
    "NewCheckpoint",
    "NewJob",
    "NewModelVersion",
    "QueueFigures",
    "Reaped",
    "append_event",
    "append_events",
    "cancel",
    "claim",
    "claim_next",
    "commit_checkpoint",
    "delete",
    "desired",
    "dispatch",
    "events_after",
    "finish",
    "get",
    "insert",
    "let_run_out",
    "list_attempts",
    "open_attempts",
    "page",
    "pause",
    "preempt",
    "queue_figures",
    "reap",
    "record_attempt",
    "renew",
    "requeue",
    "resume",
]
