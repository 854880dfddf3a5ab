"""Looks for what is not safe for work, in inputs and results, where the task or the server wants it."""

from engines import Picture, Upscaler
from onnx_models import Catalogue, UnknownModelError
from server.protocol.errors import NsfwContentError, unsupported
from server.protocol.requests import Safety as WantedSafety
from server.protocol.requests import SafetyAction, Upscale
from server.settings import Settings
from server.state.records import Safety
from server.upscale.work import Work

__all__ = ["SafetyChecks", "safety_of"]


def safety_of(task: Upscale, catalogue: Catalogue) -> SafetyAction | None:
    """What is to become of what is not safe for work; None if the task does not ask for that.

    Raises:
        ParameterError: if no checker is installed; the message names the command that fetches one.
    """
    wanted = task.safety or WantedSafety()
    asked = {
        "checkNSFW": task.check_nsfw,
        "safety.checkContent": wanted.check_content,
        "safety.mode": wanted.mode in ("fast", "full"),
        "safety.action": wanted.action,
    }
    parameter = next((name for name, value in asked.items() if value), None)
    if parameter is None:
        return None
    try:
        catalogue.auxiliary("safetyChecker")
    except UnknownModelError as error:
        raise unsupported(parameter, str(error)) from error
    return wanted.action or "flag"


class SafetyChecks:
    """Does what tasks want, or the server."""

    def __init__(self, catalogue: Catalogue, upscaler: Upscaler, settings: Settings) -> None:
        """Begin with nothing to do.

        Args:
            catalogue: has the checker.
            upscaler: runs it.
            settings: says what the server wants, and from which score on.
        """
        self._catalogue = catalogue
        self._auxiliaries = upscaler.auxiliaries
        self._policy = settings.nsfw
        self._threshold = settings.nsfw_threshold

    def action(self, wanted: SafetyAction | None) -> SafetyAction | None:
        """The stricter of what a task and the server want; None if neither wants anything."""
        if "refuse" in (wanted, self._policy):
            return "refuse"
        return "flag" if wanted is not None or self._policy == "flag" else None

    async def score(
        self, picture: Picture, what: str, action: SafetyAction | None, work: Work
    ) -> float | None:
        """How probable it is that a picture is not safe for work, from 0 to 1; None without an action.

        Args:
            picture: to look at.
            what: `the input` or `the result`.
            action: what is to become of it.
            work: whose account's share of the devices it uses.

        Raises:
            NsfwContentError: if it may not be, and is to be refused.
            EngineError: if the checker cannot be run.
        """
        if action is None:
            return None
        with work.story.measure("safety"):
            checker = self._catalogue.auxiliary("safetyChecker")
            score = await self._auxiliaries.nsfw_score(picture, checker, account=work.account)
        if action == "refuse" and score >= self._threshold:
            raise NsfwContentError(what, score)
        return score

    def verdict(self, of_input: float | None, of_result: float | None) -> Safety | None:
        """What the result says of the two scores; None if nobody looked."""
        if of_input is None or of_result is None:
            return None
        flagged = max(of_input, of_result) >= self._threshold
        return Safety(round(of_input, 4), round(of_result, 4), flagged)
