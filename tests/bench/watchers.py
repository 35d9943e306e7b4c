"""A process full of watchers: opens streams, says `ready`, and after its input closes tells how late events came.

`python -m tests.bench.watchers ADDRESS STREAMS JOB...` writes `ready`, then one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence

import grpc
from trainyard.v1 import job_pb2, job_pb2_grpc

from services.client.watch import EVENTS_AT_ONCE
from tests.bench.figures import percentile

STREAMS_PER_CONNECTION = 50
_METADATA = (("authorization", f"Bearer {os.environ.get('TRAINYARD_TOKEN', '')}"),)
# A pool of its own for each channel, so that there are as many connections as channels.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


class Watchers:
    """Streams and what they received."""

    def __init__(self, address: str, names: Sequence[str], streams: int) -> None:
        self._address = address
        self._names = names
        self._streams = streams
        self.settled = asyncio.Event()
        """Set once every stream has begun, or one has failed."""
        self.late_seconds: list[float] = []
        self.faults: list[str] = []
        self._open = 0

    async def run(self) -> None:
        """Watch until the streams are cancelled."""
        count = -(-self._streams // STREAMS_PER_CONNECTION)
        channels = [grpc.aio.insecure_channel(self._address, options=_OPTIONS) for _ in range(count)]
        stubs = [job_pb2_grpc.JobServiceStub(channel) for channel in channels]
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._streams):
                    name = self._names[number % len(self._names)]
                    tasks.create_task(self._watch(stubs[number % count], name))
        finally:
            for channel in channels:
                await channel.close()

    async def _watch(self, stub: job_pb2_grpc.JobServiceStub, name: str) -> None:
        is_open, last = False, 0
        try:
            request = job_pb2.WatchJobRequest(name=name, max_events=EVENTS_AT_ONCE)
            async for response in stub.WatchJob(request, metadata=_METADATA):
                now = time.time()
                if not is_open:
                    is_open = True
                    self._begun()
                for event in (response.event, *response.more):
                    if event.seq != last + 1:
                        self.faults.append(f"{name}: {last} is followed by {event.seq}")
                    last = event.seq
                    # What was written before every stream had begun tells nothing of how fast they are.
                    if event.log.text and self.settled.is_set():
                        self.late_seconds.append(now - float(event.log.text))
        except grpc.aio.AioRpcError as err:
            self.faults.append(f"{name}: {err.code().name} {err.details()}")
            self.settled.set()

    def _begun(self) -> None:
        self._open += 1
        if self._open == self._streams:
            self.settled.set()


async def main(address: str, streams: int, names: Sequence[str]) -> None:
    watchers = Watchers(address, names, streams)
    task = asyncio.create_task(watchers.run())
    await watchers.settled.wait()
    print("ready" if not watchers.faults else watchers.faults[0], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    late = watchers.late_seconds
    figures = {f"p{round(100 * share)}_ms": round(1e3 * percentile(late, share), 1) for share in (0.5, 0.9, 0.99)}
    print(json.dumps({"events": len(late), **figures, "faults": watchers.faults[:5]}), flush=True)
    task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
