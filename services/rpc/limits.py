"""What one server and one caller may use. The figures bound memory and the share of one caller, and none is a matter of taste."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Bounds of one API server; rates and streams count by caller, who is a peer address or a bearer token."""

    message_bytes: int = 16 * MIB
    """Photographs of phones fit; a serving machine takes half as much again, in base64."""
    answer_bytes: int = 40 * MIB
    """What a serving machine may answer, 32 MiB, fits: pictures of a generator or of a large mask."""
    metadata_bytes: int = 8 * 1024
    metadata_hard_bytes: int = 16 * 1024
    """Above `metadata_bytes` more and more calls are refused, above this all are."""

    concurrent_calls: int = 8192
    streams_per_connection: int = 1000
    """A client library queues what exceeds this, so it is what one connection of watchers may need."""

    stream_buffer_bytes: int = 64 * 1024
    """What the transport keeps for one stream whose reader is slow, beside the message being written."""

    send_queue_bytes: int = 256 * 1024
    """What the kernel keeps of a connection that its reader leaves full; also what is on its way over a long distance."""

    min_ping_interval_ms: int = 30_000
    """Clients may ping this often; gRPC's default of 5 minutes cuts off those that keep idle streams alive."""
    ping_strikes: int = 2

    connection_idle_ms: int = 15 * MINUTE_MS
    connection_age_ms: int = 30 * MINUTE_MS
    """Spreads long-lived clients over replicas again; watchers resume by sequence number."""
    connection_grace_ms: int = 10 * MINUTE_MS

    calls_per_second: float = 200.0
    """Of one token; a modest core answers several times as many."""
    burst_seconds: float = 5.0
    """Calls of this much time may come at once."""
    callers_per_address: float = 5.0
    """How many times a caller's rate all callers behind one address may make together."""
    rate_patience_seconds: float = 1.0
    """A call above the rate waits this long at most; one that would have to wait longer is refused."""
    streams_per_caller: int = 2000
    streams: int = 6000
    """Of all callers; below `concurrent_calls`, so that single calls are always answered."""
    stream_seconds: float = 3600.0
    write_patience_seconds: float = 60.0
    """A reader that takes nothing for this long is sent away; it resumes where it stopped."""


def grpc_options(limits: ServerLimits) -> tuple[tuple[str, int], ...]:
    """Return the channel arguments of a grpc.aio server."""
    return (
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.answer_bytes),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_hard_bytes),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.http2.write_buffer_size", limits.stream_buffer_bytes),
        ("grpc.http2.min_ping_interval_without_data_ms", limits.min_ping_interval_ms),
        ("grpc.http2.max_ping_strikes", limits.ping_strikes),
        ("grpc.keepalive_time_ms", MINUTE_MS),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", limits.connection_age_ms),
        ("grpc.max_connection_age_grace_ms", limits.connection_grace_ms),
        ("grpc.max_connection_idle_ms", limits.connection_idle_ms),
        # A second server on the port must fail, not take half of the connections.
        ("grpc.so_reuseport", 0),
    )
