"""Answers to POSTs: the images in them count as what waits to go out, for the account that asked."""

from starlette.requests import Request

from server.delivery.results import ClientResults
from server.http.gate import ANSWER
from server.limits.memory import Memory
from server.services import Services
from server.state.accounts import AccountId
from server.transport.http import OWNER

__all__ = ["results_for"]


def results_for(request: Request, account: AccountId) -> ClientResults:
    """What reads the results that go into the answer to a request; they are counted until it is written.

    Args:
        request: that is answered.
        account: whose it is.
    """
    services: Services = request.app.state.services
    memory: Memory = request.app.state.memory
    results = services.client_results(request.app.state.base_url(request))

    def refuse() -> None:
        results.refuse()
        holding.release()

    holding = request.scope[ANSWER] = memory.outgoing.holding(account, refuse, results.go_on)
    largest = memory.outgoing.share // 2  # one image may be as large as it is
    results.count_by(lambda size: holding.add(min(size, largest)))
    setattr(request.state, OWNER, account)
    return results
