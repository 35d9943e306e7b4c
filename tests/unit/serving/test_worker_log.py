from __future__ import annotations

from services.agent.worker_log import failure_reason

LOG = """\
2026-01-01T00:00:00,000 [INFO ] W-9000-p--d_v1-stdout - model_name: p--d, batchSize: 8
2026-01-01T00:00:01,000 [INFO ] W-9000-p--d_v1-stdout - Backend worker process died.
2026-01-01T00:00:01,000 [INFO ] W-9000-p--d_v1-stdout - Traceback (most recent call last):
2026-01-01T00:00:01,000 [INFO ] W-9000-p--d_v1-stdout -   File "bundle.py", line 1, in check
2026-01-01T00:00:01,000 [INFO ] W-9000-p--d_v1-stdout - workers.serving.bundle.BundleInvalid: golden input 0 differs
2026-01-01T00:00:02,000 [INFO ] W-9001-p--other_v1-stdout - ValueError: not mine
2026-01-01T00:00:03,000 [INFO ] W-9000-p--d_v1-stdout - model_name: p--d, batchSize: 8
"""


def test_the_reason_is_the_last_exception_of_that_version(tmp_path):
    path = tmp_path / "model_log.log"
    path.write_text(LOG)

    assert failure_reason(path, name="p--d", version="v1") == "BundleInvalid: golden input 0 differs"


def test_without_an_exception_there_is_no_reason(tmp_path):
    path = tmp_path / "model_log.log"
    path.write_text(LOG)

    assert failure_reason(path, name="p--d", version="v2") is None
    assert failure_reason(tmp_path / "gone.log", name="p--d", version="v1") is None
