"""The records of images, on a real database file."""

from secrets import token_urlsafe

import pytest

from server.state.accounts import AccountId, account_named
from server.state.database import Database
from server.state.images import (
    ImageRecord,
    expired,
    extend,
    find_image,
    forget,
    image_named,
    note_loose,
    record_image,
    stale_loose,
)
from tests.server.support.harness import new_uuid

NOW = 1_000_000.0


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", NOW)


def image(account: AccountId, uuid: str | None = None, ttl: float = 60) -> ImageRecord:
    return ImageRecord(uuid or new_uuid(), account, f"{token_urlsafe(16)}.png", 100, 20, 10, NOW + ttl)


def test_an_image_is_found_by_its_owner_and_by_whoever_knows_its_name(
    database: Database, account: AccountId
) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    mine = image(account)
    assert database.run_sync(record_image, mine, NOW) == (mine, None)
    assert database.run_sync(find_image, account, mine.uuid, NOW) == mine
    assert database.run_sync(find_image, other, mine.uuid, NOW) is None
    assert database.run_sync(image_named, mine.name, NOW) == mine


def test_an_image_is_not_found_once_its_time_has_passed(database: Database, account: AccountId) -> None:
    mine = image(account, ttl=60)
    database.run_sync(record_image, mine, NOW)
    for when, found in ((NOW + 59, mine), (NOW + 60, None)):
        assert database.run_sync(find_image, account, mine.uuid, when) == found
        assert database.run_sync(image_named, mine.name, when) == found


def test_an_extension_never_shortens(database: Database, account: AccountId) -> None:
    mine = image(account, ttl=60)
    database.run_sync(record_image, mine, NOW)
    longer = mine._replace(expires=NOW + 90)
    assert database.run_sync(extend, account, mine.uuid, NOW + 90, NOW) == longer
    assert database.run_sync(extend, account, mine.uuid, NOW + 10, NOW) == longer
    assert database.run_sync(find_image, account, mine.uuid, NOW) == longer


def test_what_has_expired_or_belongs_to_others_cannot_be_extended(
    database: Database, account: AccountId
) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    mine = image(account, ttl=60)
    database.run_sync(record_image, mine, NOW)
    assert database.run_sync(extend, other, mine.uuid, NOW + 90, NOW) is None
    assert database.run_sync(extend, account, mine.uuid, NOW + 90, NOW + 61) is None
    assert database.run_sync(find_image, account, mine.uuid, NOW) == mine


def test_of_two_uploads_of_one_image_the_first_stays_for_as_long_as_either_should(
    database: Database, account: AccountId
) -> None:
    first = image(account, ttl=60)
    second = image(account, first.uuid, ttl=90)
    third = image(account, first.uuid, ttl=10)
    database.run_sync(record_image, first, NOW)
    kept = first._replace(expires=NOW + 90)
    assert database.run_sync(record_image, second, NOW) == (kept, second.name)
    assert database.run_sync(record_image, third, NOW) == (kept, third.name)
    assert database.run_sync(image_named, second.name, NOW) is None


def test_an_image_that_has_expired_is_replaced(database: Database, account: AccountId) -> None:
    first = image(account, ttl=60)
    second = image(account, first.uuid, ttl=200)
    database.run_sync(record_image, first, NOW)
    assert database.run_sync(record_image, second, NOW + 100) == (second, first.name)
    assert database.run_sync(find_image, account, first.uuid, NOW + 100) == second


def test_expired_images_are_listed_and_forgotten_by_name(database: Database, account: AccountId) -> None:
    images = [image(account, ttl=ttl) for ttl in (10, 20, 30)]
    for one in images:
        database.run_sync(record_image, one, NOW)
    assert database.run_sync(expired, NOW + 20, 100) == images[:2]
    assert len(database.run_sync(expired, NOW + 20, 1)) == 1
    replacement = image(account, images[0].uuid, ttl=100)
    database.run_sync(record_image, replacement, NOW + 20)
    database.run_sync(forget, [one.name for one in images[:2]])
    assert database.run_sync(expired, NOW + 20, 100) == []
    assert database.run_sync(find_image, account, replacement.uuid, NOW + 20) == replacement


def test_a_file_is_loose_until_an_image_names_it_and_when_none_does_any_more(
    database: Database, account: AccountId
) -> None:
    first, superfluous = image(account), image(account)
    superfluous = superfluous._replace(uuid=first.uuid)
    for one in (first, superfluous):
        database.run_sync(note_loose, one.name, NOW)
    database.run_sync(record_image, first, NOW)
    database.run_sync(record_image, superfluous, NOW)
    assert database.run_sync(stale_loose, NOW, 100) == []
    assert database.run_sync(stale_loose, NOW + 1, 100) == [superfluous.name]
    later = image(account, first.uuid, ttl=200)
    database.run_sync(record_image, later, NOW + 100)
    assert set(database.run_sync(stale_loose, NOW + 101, 100)) == {first.name, superfluous.name}
