"""The one predicate that keeps a worker without its lease from writing anything.

Expiry is no part of it: a lease that ran out stays good until the reaper raises the token.
"""

from __future__ import annotations

from sqlalchemy.sql.elements import ColumnElement

from services.db import tables as t
from services.db.job_records import Lease


def is_held(lease: Lease) -> ColumnElement[bool]:
    """Match the job's row while `lease` is the current one."""
    return (t.jobs.c.id == lease.job_id) & (t.jobs.c.token == lease.token) & t.IS_RUNNING
