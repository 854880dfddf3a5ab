"""The records of images, on a real database file."""

import random
from concurrent.futures import ThreadPoolExecutor
from secrets import token_urlsafe

import pytest

from server.state.accounts import AccountId, account_named
from server.state.database import Database
from server.state.images import (
    FileCondemnedError,
    ImageRecord,
    condemn_expired,
    extend,
    find_image,
    image_named,
    record_image,
)
from server.state.loose_files import condemn_stale, condemned, forget_loose, note_loose
from tests.server.support.harness import new_uuid

NOW = 1_000_000.0


@pytest.fixture
def account(database: Database) -> AccountId:
    return database.run_sync(account_named, "ada", NOW)


def image(account: AccountId, uuid: str | None = None, ttl: float = 60) -> ImageRecord:
    return ImageRecord(uuid or new_uuid(), account, f"{token_urlsafe(16)}.png", 100, 20, 10, NOW + ttl)


def put(database: Database, one: ImageRecord, now: float) -> tuple[ImageRecord, str | None]:
    database.run_sync(note_loose, one.name, now)
    return database.run_sync(record_image, one, now)


def to_delete(database: Database) -> set[str]:
    return set(database.run_sync(condemned, "", 100))


def test_an_image_is_found_by_its_owner_and_by_whoever_knows_its_name(
    database: Database, account: AccountId
) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    mine = image(account)
    assert put(database, mine, NOW) == (mine, None)
    assert database.run_sync(find_image, account, mine.uuid, NOW) == mine
    assert database.run_sync(find_image, other, mine.uuid, NOW) is None
    assert database.run_sync(image_named, mine.name, NOW) == mine


def test_an_image_is_not_found_once_its_time_has_passed(database: Database, account: AccountId) -> None:
    mine = image(account, ttl=60)
    put(database, mine, NOW)
    for when, found in ((NOW + 59, mine), (NOW + 60, None)):
        assert database.run_sync(find_image, account, mine.uuid, when) == found
        assert database.run_sync(image_named, mine.name, when) == found


def test_an_extension_never_shortens(database: Database, account: AccountId) -> None:
    mine = image(account, ttl=60)
    put(database, mine, NOW)
    longer = mine._replace(expires=NOW + 90)
    assert database.run_sync(extend, account, mine.uuid, NOW + 90, NOW) == longer
    for _ in range(2):
        again = database.run_sync(extend, account, mine.uuid, NOW + 10, NOW)
        assert again is not None
        assert again == longer
    assert database.run_sync(find_image, account, mine.uuid, NOW) == again


def test_what_has_expired_or_belongs_to_others_cannot_be_extended(
    database: Database, account: AccountId
) -> None:
    other = database.run_sync(account_named, "bob", NOW)
    mine = image(account, ttl=60)
    put(database, mine, NOW)
    assert database.run_sync(extend, other, mine.uuid, NOW + 90, NOW) is None
    assert database.run_sync(extend, account, mine.uuid, NOW + 90, NOW + 61) is None
    assert database.run_sync(find_image, account, mine.uuid, NOW) == mine


def test_of_two_uploads_of_one_image_the_first_stays_for_as_long_as_either_should(
    database: Database, account: AccountId
) -> None:
    first = image(account, ttl=60)
    second = image(account, first.uuid, ttl=90)
    third = image(account, first.uuid, ttl=10)
    put(database, first, NOW)
    kept = first._replace(expires=NOW + 90)
    assert put(database, second, NOW) == (kept, second.name)
    last, superfluous = put(database, third, NOW)
    assert (last, superfluous) == (kept, third.name)
    assert database.run_sync(image_named, second.name, NOW) is None


def test_an_image_that_has_expired_is_replaced(database: Database, account: AccountId) -> None:
    first = image(account, ttl=60)
    second = image(account, first.uuid, ttl=200)
    put(database, first, NOW)
    assert put(database, second, NOW + 100) == (second, first.name)
    assert database.run_sync(find_image, account, first.uuid, NOW + 100) == second


def test_the_files_of_expired_images_are_condemned(database: Database, account: AccountId) -> None:
    images = [image(account, ttl=ttl) for ttl in (10, 20, 30)]
    for one in images:
        put(database, one, NOW)
    names = [one.name for one in images[:2]]
    assert len(database.run_sync(condemn_expired, NOW + 20, 1)) == 1
    assert len(database.run_sync(condemn_expired, NOW + 20, 100)) == 1
    assert database.run_sync(condemn_expired, NOW + 20, 100) == []
    assert database.run_sync(condemned, "", 100) == sorted(names)
    assert database.run_sync(condemned, min(names), 100) == [max(names)]
    assert database.run_sync(extend, account, images[0].uuid, NOW + 90, NOW) is None, "though a clock is slow"
    assert database.run_sync(find_image, account, images[2].uuid, NOW + 20) == images[2]
    database.run_sync(forget_loose, names)
    assert to_delete(database) == set()


def test_an_image_that_was_extended_before_it_was_condemned_stays(
    database: Database, account: AccountId
) -> None:
    mine = image(account, ttl=10)
    put(database, mine, NOW)
    assert database.run_sync(extend, account, mine.uuid, NOW + 100, NOW + 9) is not None
    assert database.run_sync(condemn_expired, NOW + 11, 100) == []
    assert to_delete(database) == set()


def test_of_extensions_together_the_longest_wins(database: Database, account: AccountId) -> None:
    mine = image(account, ttl=10)
    put(database, mine, NOW)
    until = [NOW + 20 + number for number in range(40)]
    random.Random(1).shuffle(until)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda expires: database.run_sync(extend, account, mine.uuid, expires, NOW), until))
    found = database.run_sync(find_image, account, mine.uuid, NOW)
    assert found is not None
    assert found.expires == pytest.approx(max(until), abs=0.1)


def test_a_file_is_condemned_once_no_image_names_it_or_it_was_loose_for_too_long(
    database: Database, account: AccountId
) -> None:
    first, left, superfluous = image(account), image(account), image(account)
    put(database, first, NOW)
    put(database, superfluous._replace(uuid=first.uuid), NOW)
    assert to_delete(database) == {superfluous.name}
    database.run_sync(note_loose, left.name, NOW)
    assert database.run_sync(condemn_stale, NOW) == 0
    assert database.run_sync(condemn_stale, NOW + 1) == 1
    with pytest.raises(FileCondemnedError):
        database.run_sync(record_image, left, NOW)
    assert database.run_sync(find_image, account, left.uuid, NOW) is None
    put(database, image(account, first.uuid, ttl=200), NOW + 100)
    assert to_delete(database) == {first.name, left.name, superfluous.name}
