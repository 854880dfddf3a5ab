"""`tilewire accounts`."""

from pathlib import Path

from sqlalchemy import update

from server.state.database import Database
from server.state.tables import accounts
from tests.server.conftest import Tilewire


def test_accounts_are_listed_and_credited(tilewire: Tilewire) -> None:
    tilewire("keys", "create", "--account", "[ada]", "--credit", "2.50")
    tilewire("keys", "create", "--account", "bob", "--credit", "unlimited")
    credited = tilewire("accounts", "credit", "[ada]", "0.25")
    assert credited.stdout == "[ada] has 2.75 USD\n"
    heading, ada, bob = tilewire("accounts", "list").stdout.splitlines()
    assert heading.split() == ["account", "balance", "reserved", "charged", "created"]
    assert ada.split()[:4] == ["[ada]", "2.75", "0", "0"]
    assert bob.split()[:5] == ["bob", "no", "limit", "0", "0"]


def test_credit_for_nobody_or_of_nothing_is_refused(tilewire: Tilewire) -> None:
    tilewire("keys", "create")
    for name, amount, told in (("nobody", "5", "no account 'nobody'"), ("default", "five", "AMOUNT: 'five'")):
        result = tilewire("accounts", "credit", name, amount)
        assert result.exit_code == 2
        assert told in result.stderr


def test_the_webhook_secret_of_an_account_is_printed_and_rotated(tilewire: Tilewire) -> None:
    tilewire("keys", "create", "--account", "[ada]", "--credit", "0")
    secret = tilewire("accounts", "webhook-secret", "[ada]").stdout.strip()
    assert secret.startswith("whsec_")
    assert tilewire("accounts", "webhook-secret", "[ada]").stdout.strip() == secret
    rotated = tilewire("accounts", "webhook-secret", "[ada]", "--rotate").stdout.strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    assert tilewire("accounts", "webhook-secret", "[ada]").stdout.strip() == rotated
    unknown = tilewire("accounts", "webhook-secret", "nobody")
    assert (unknown.exit_code, unknown.stdout) == (2, "")


def test_an_audit_says_what_it_checked_or_what_is_wrong(tilewire: Tilewire, tmp_path: Path) -> None:
    tilewire("keys", "create", "--account", "ada", "--credit", "2.50")
    right = tilewire("accounts", "audit")
    assert right.exit_code == 0
    assert right.stdout.startswith("the books are right: accounts 1, ledger entries 1, charges 0")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    database.run_sync(lambda connection: connection.execute(update(accounts).values(balance=1)))
    database.close()
    wrong = tilewire("accounts", "audit")
    assert (wrong.exit_code, "books" in wrong.stdout) == (1, False)
    assert "account 'ada': balance is kept as 1" in wrong.stderr
