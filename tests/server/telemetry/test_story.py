"""The story of a task: each stage timed once, and told to whoever listens."""

import logging
from typing import Any

import pytest

from server.protocol.errors import TaskCancelledError, TaskError, invalid
from server.state.accounts import AccountId
from server.state.records import Attempt, Status, StoredResult, TaskRecord
from server.telemetry.story import Story, Subject, story_of

SUBJECT = Subject("task", AccountId("account"), "session", "model")


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.ended: list[str | None] = []
        self.closed: list[str | None] = []

    def stage_ended(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append(stage)

    def task_ended(self, story: Story) -> None:
        self.ended.append(story.outcome)

    def story_ended(self, story: Story) -> None:
        self.closed.append(story.outcome)


def record(result: StoredResult | None = None, error: TaskError | None = None) -> TaskRecord:
    status = Status.SUCCEEDED if error is None else Status.FAILED
    item = None if error is None else error.item("upscale", "task", None)
    cost = 0 if result is None else result.cost
    attempt = Attempt.of(SUBJECT.account, "task")
    return TaskRecord(attempt, b"{}", "session", status, result, item, charged=cost, spent=cost)


def test_stages_are_told_in_the_order_in_which_they_end() -> None:
    listener = Listener()
    with story_of(SUBJECT, listener) as story:
        with story.measure("decode"):
            pass
        with story.measure("queue") as measuring:
            measuring.become("inference")
            measuring.become("inference")  # begun again with smaller tiles
    assert listener.stages == [stage for stage, _, _ in story.stages] == ["decode", "queue", "inference"]


def test_a_stage_that_fails_is_told_and_cannot_become_another_afterwards() -> None:
    listener = Listener()
    story = Story(SUBJECT, listener)
    with pytest.raises(OSError, match="no room"), story.measure("queue") as measuring:
        raise OSError("no room")
    measuring.become("inference")
    assert listener.stages == ["queue"]


@pytest.mark.parametrize(
    ("outcome", "end"),
    [
        ("succeeded", record(StoredResult("image", "image.png", "input", cost=2_000_000))),
        ("failed", record(error=invalid("model", "there is none"))),
        ("cancelled", record(error=TaskCancelledError())),
    ],
)
def test_an_outcome_is_told_once_and_the_end_of_the_story_after_it(outcome: str, end: TaskRecord) -> None:
    listener = Listener()
    with story_of(SUBJECT, listener) as story:
        story.finish(end)
        assert (listener.ended, listener.closed) == ([outcome], [])
    assert (listener.ended, listener.closed) == ([outcome], [outcome])


def test_the_log_says_what_each_stage_took_and_what_the_task_cost(caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="server")
    with story_of(SUBJECT, Listener()) as story:
        with story.measure("decode"), pytest.raises(ZeroDivisionError):
            _ = 1 / 0
        story.finish(record(StoredResult("image", "image.png", "input", cost=2_000_000)))
    (line,) = caplog.records
    assert line.message == "task finished"
    assert (str(line.cost_usd), line.decode_ms <= line.total_ms) == ("0.002", True)


def test_a_task_that_the_server_leaves_has_no_outcome() -> None:
    listener = Listener()
    with story_of(SUBJECT, listener):
        pass
    assert (listener.ended, listener.closed) == ([], [None])
