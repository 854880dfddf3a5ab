"""What accounts use, added up until it is recorded, and for the metrics since the start."""

from collections import Counter
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from server.protocol.errors import DatabaseUnavailableError
from server.state import usage
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.usage import Amounts, UsageKey, bucket_of, quarter_of
from server.telemetry.story import Story

__all__ = ["UsageTally"]

_MILLISECONDS: Final = 1000


class UsageTally:
    """Adds up what stories tell. In the event loop only."""

    def __init__(self) -> None:
        self._unrecorded: dict[UsageKey, Amounts] = {}
        self._since_start: dict[tuple[AccountId, str], Amounts] = {}

    def task_ended(self, story: Story) -> None:
        """Count a task that has its outcome."""
        account, key, model = story.subject.account, story.subject.key or "", story.subject.model
        succeeded, code = story.outcome == "succeeded", story.code or ""
        on_devices = sum(stage.seconds for stage in story.stages if stage.stage == "inference")
        inference = round(on_devices * _MILLISECONDS) if succeeded else 0
        amounts = Amounts(
            tasks=1,
            pixels=story.output_pixels if succeeded else 0,
            device=round(story.device.seconds * _MILLISECONDS),
            inference=inference,
            elapsed=round(story.seconds * _MILLISECONDS),
            charged=story.cost,
        ).ended(code)
        ended = quarter_of(story.began + story.seconds)
        this = UsageKey(account, ended, key, model, code, bucket_of(inference))
        self._unrecorded.setdefault(this, Amounts()).add(amounts)
        self._since_start.setdefault((account, model), Amounts()).add(amounts)

    async def record(self, database: Database) -> None:
        """Record what was added up since the last time; what fails is recorded the next time."""
        unrecorded, self._unrecorded = self._unrecorded, {}
        if not unrecorded:
            return
        try:
            await database.run(usage.add, unrecorded)
        except (DatabaseUnavailableError, SQLAlchemyError):
            for key, amounts in unrecorded.items():
                self._unrecorded.setdefault(key, Amounts()).add(amounts)
            raise

    def largest(self, count: int) -> dict[tuple[AccountId, str], Amounts]:
        """What the accounts used, of each model, since the start, of those that devices worked for the most.

        Args:
            count: how many accounts.
        """
        worked: Counter[AccountId] = Counter()
        for (account, _), amounts in self._since_start.items():
            worked[account] += amounts.device
        chosen = {account for account, _ in worked.most_common(count)}
        return {key: amounts for key, amounts in self._since_start.items() if key[0] in chosen}
