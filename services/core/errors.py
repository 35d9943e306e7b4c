"""The one tree of errors. The class fixes the status code, the reason and whether retrying helps.

The docstring of a class is its default message. User mistakes, platform faults and "you lost the
race" are different classes; `services/rpc` turns them into statuses in one place.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class Code(enum.Enum):
    """Canonical status codes, by the names gRPC gives them."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field; `description` says what is wrong and what to do."""

    field: str
    description: str
    count: int = 1
    """How many things it stands for."""


class PlatformError(Exception):
    """Something went wrong on our side."""

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message or inspect.getdoc(type(self)))
        self.violations = tuple(violations)


class SettingsInvalid(ValueError):
    """A setting cannot be used; the message names its variable and says what to do.

    No PlatformError: it ends a process or a local command, and no call is answered with it.
    """


class RequestInvalid(PlatformError):
    """The request has invalid fields."""

    code = Code.INVALID_ARGUMENT
    reason = "REQUEST_INVALID"

    def __init__(self, message: str | None = None, *, violations: Sequence[Violation] = ()) -> None:
        if message is None and violations:
            message = "; ".join(f"{v.field}: {v.description}" for v in violations[:5])
            if len(violations) > 5:
                message += f"; and {len(violations) - 5} more"
        super().__init__(message, violations=violations)


class DatasetInvalid(RequestInvalid):
    """The dataset cannot be imported."""

    reason = "INVALID_DATASET"


class Unauthenticated(PlatformError):
    """The call carries no valid token."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(PlatformError):
    """The token may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class NotFound(PlatformError):
    """No such resource."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"


class JobNotFound(NotFound):
    """No such job."""


class DatasetNotFound(NotFound):
    """No such dataset."""


class ModelNotFound(NotFound):
    """No such model version."""


class CheckpointNotFound(NotFound):
    """No such checkpoint."""


class ArtifactNotFound(NotFound):
    """No such artifact."""


class DeploymentNotFound(NotFound):
    """No such deployment."""


class GalleryNotFound(NotFound):
    """No such gallery."""


class IdentityNotFound(NotFound):
    """No such identity."""


class RecipeNotFound(NotFound):
    """No such recipe."""


class ObjectNotFound(NotFound):
    """No such object in the store."""


class ProjectNotFound(NotFound):
    """No such project."""


class TokenNotFound(NotFound):
    """No such token."""


class IdempotencyConflict(PlatformError):
    """The request_id was already used with another request; send a fresh request_id."""

    code = Code.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class AlreadyExists(PlatformError):
    """A resource of this name exists already."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class PreconditionFailed(PlatformError):
    """The resource is not in a state that allows this."""

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class VersionsDiffer(PreconditionFailed):
    """Embeddings of different model versions cannot be compared."""

    reason = "MODEL_VERSIONS_DIFFER"


class LeaseHeld(PlatformError):
    """Another worker is already running this attempt."""

    code = Code.ABORTED
    reason = "LEASE_HELD"


class LeaseLost(PlatformError):
    """The lease passed to another attempt; nothing more may be written."""

    code = Code.ABORTED
    reason = "LEASE_LOST"


class JobNotRunnable(PlatformError):
    """The job is not queued: it was cancelled or finished meanwhile."""

    code = Code.FAILED_PRECONDITION
    reason = "JOB_NOT_RUNNABLE"


class LimitExceeded(PlatformError):
    """A limit of this server was exceeded."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "LIMIT_EXCEEDED"


class RateExceeded(PlatformError):
    """Calls come faster than this server takes them from one caller; call again later."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"
    retryable = True

    def __init__(self, message: str | None = None, *, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class QuotaExceeded(PlatformError):
    """A quota of the project is used up."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "QUOTA_EXCEEDED"


class StoreUnavailable(PlatformError):
    """The object store does not answer."""

    code = Code.UNAVAILABLE
    reason = "STORAGE_UNAVAILABLE"
    retryable = True


class DatabaseUnavailable(PlatformError):
    """The metadata database does not answer."""

    code = Code.UNAVAILABLE
    reason = "DATABASE_UNAVAILABLE"
    retryable = True


class BrokerUnavailable(PlatformError):
    """The message broker does not answer."""

    code = Code.UNAVAILABLE
    reason = "BROKER_UNAVAILABLE"
    retryable = True


class EndpointUnavailable(PlatformError):
    """No serving process answers for this deployment right now."""

    code = Code.UNAVAILABLE
    reason = "ENDPOINT_UNAVAILABLE"
    retryable = True


class IntegrityError(PlatformError):
    """Stored bytes do not match their recorded sha256."""

    reason = "INTEGRITY"


class DeadlineExceeded(PlatformError):
    """The call did not finish before its deadline."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"
    retryable = True


class ServerStopping(PlatformError):
    """The server is stopping; connect again to reach another one."""

    code = Code.UNAVAILABLE
    reason = "SERVER_STOPPING"
    retryable = True


class StreamEnded(PlatformError):
    """The stream was open for as long as this server allows; open another one and resume."""

    code = Code.UNAVAILABLE
    reason = "STREAM_ENDED"
    retryable = True


class ReaderTooSlow(PlatformError):
    """Nothing of the stream was read for long; read faster, and resume with a new stream."""

    code = Code.UNAVAILABLE
    reason = "READER_TOO_SLOW"
    retryable = True


class NotServed(PlatformError):
    """The server does not answer this method."""

    code = Code.UNIMPLEMENTED
    reason = "NOT_SERVED"


class NotSupported(PlatformError):
    """A part that this needs is not in this platform."""

    code = Code.UNIMPLEMENTED
    reason = "NOT_SUPPORTED"


class SourceUnavailable(PlatformError):
    """The address of the dataset could not be fetched."""

    code = Code.FAILED_PRECONDITION
    reason = "SOURCE_UNAVAILABLE"


class PredictionFailed(PlatformError):
    """The serving process failed on this request; its log has the reason."""

    reason = "PREDICTION_FAILED"
