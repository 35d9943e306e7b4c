"""What the platform asks of a broker: a message goes to one free consumer, soon. It may be lost, and must not be doubled."""

from __future__ import annotations

import json

import pytest

from services.broker.app import make_app
from services.broker.sender import RUN_ATTEMPT
from services.core.errors import BrokerUnavailable
from tests.contract.broker.conftest import Broker, until

MANY = [f"job-{number:02d}" for number in range(40)]


def test_messages_wait_for_a_consumer_and_arrive_in_the_order_they_were_sent(broker: Broker) -> None:
    broker.send(*MANY)
    assert broker.waiting() == len(MANY)

    consumer = broker.consume()

    assert consumer.wait_for(len(MANY)) == MANY
    assert broker.waiting() == 0


def test_queues_are_apart(broker: Broker) -> None:
    broker.sender().send(RUN_ATTEMPT, f"{broker.queue}-other", "not-mine")
    broker.send("mine")

    assert broker.consume().wait_for(1) == ["mine"]


def test_two_consumers_share_messages_and_none_comes_twice(broker: Broker) -> None:
    first, second = broker.consume(slots=2, is_holding=True), broker.consume(slots=2, is_holding=True)
    broker.send(*MANY)
    # Both have all they can take: each one's slots, and nothing more.
    until(lambda: len(first.received) + len(second.received) == 4, what="four running tasks")
    assert broker.waiting() == len(MANY) - 4

    first.release()
    second.release()
    until(lambda: len(first.received) + len(second.received) >= len(MANY), what="every message")

    assert sorted(first.received + second.received) == MANY


def test_a_killed_consumer_takes_nothing_along_but_what_it_ran(broker: Broker) -> None:
    broker.send("running", "second", "third")
    victim = broker.consume(is_holding=True)
    assert victim.wait_for(1) == ["running"]

    victim.kill()

    assert broker.consume().wait_for(2) == ["second", "third"]
    assert victim.received == ["running"]


def test_a_purge_drops_what_waits_and_says_how_much(broker: Broker) -> None:
    broker.send("old", "older")

    assert broker.purge() == 2

    broker.send("new")
    assert broker.consume().wait_for(1) == ["new"]


def test_a_broker_that_forgot_everything_is_used_again_by_those_who_knew_it(broker: Broker) -> None:
    sender = broker.sender()
    sender.send(RUN_ATTEMPT, broker.queue, "before")
    consumer = broker.consume(is_holding=True)
    assert consumer.wait_for(1) == ["before"]
    sender.send(RUN_ATTEMPT, broker.queue, "lost")
    until(lambda: broker.waiting() == 1, what="a message that waits")

    broker.restart()
    assert broker.waiting() == 0
    sender.send(RUN_ATTEMPT, broker.queue, "after")
    consumer.release()

    assert consumer.wait_for(2) == ["before", "after"]
    assert consumer.process.poll() is None


def test_a_message_is_the_id_alone(broker: Broker) -> None:
    broker.send("job-1")

    body, headers = first_message(broker)

    assert body[:2] == [["job-1"], {}]
    assert headers["task"] == RUN_ATTEMPT


def first_message(broker: Broker) -> tuple[list[object], dict[str, object]]:
    with make_app(broker.settings).connection_for_read() as connection, connection.channel() as channel:
        message = channel.basic_get(broker.queue, no_ack=True)
        return json.loads(message.body), message.headers


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_server_that_is_away_is_said_to_be(broker: Broker) -> None:
    sender = broker.sender()
    assert broker.server is not None
    broker.server.process.stop()
    try:
        with pytest.raises(BrokerUnavailable):
            sender.send(RUN_ATTEMPT, broker.queue, "nobody")
    finally:
        broker.server.process.start()

    sender.send(RUN_ATTEMPT, broker.queue, "somebody")

    assert broker.consume().wait_for(1) == ["somebody"]
