"""The journal on a real server: order, batches, a database that fails, counts, archiving, forks.

Thread rule: records come from several threads that start together; what waits is written by flush().
Refuses to know: caches.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone

import pytest

from postgres_here import Database
from reference_tables import HISTORY, HISTORY_INDEXES
from stillwarm import ConfigError
from stillwarm._schema import migrate
from stillwarm.errors import TierRejected, TierUnavailable
from stillwarm.journal import Journal


class Flaky:
    """A Query that fails when it is told to, and counts the INSERTs that it lets through."""

    def __init__(self, database: Database) -> None:
        self._query = database.query
        self.error: Exception | None = None
        self.after: Exception | None = None  # the statement happens, and its answer is lost
        self.inserts = 0
        self.wrote = threading.Event()

    def __call__(self, sql: str, params: Sequence[str | None]) -> list[tuple[str | None, ...]]:
        if self.error is not None:
            raise self.error
        rows = self._query(sql, params)
        if sql.startswith("INSERT"):
            self.inserts += 1
            self.wrote.set()
            if self.after is not None:
                error, self.after = self.after, None
                raise error
        return rows


@pytest.fixture
def flaky(database: Database) -> Flaky:
    return Flaky(database)


@pytest.fixture
def journal(flaky: Flaky) -> Iterator[Journal]:
    """One that writes only when it is told to, or a batch is full."""
    made = Journal(flaky, "search_history", HISTORY, HISTORY_INDEXES, interval=3600)
    migrate(flaky, [made])
    with made:
        yield made
        flaky.error = None


def look_up(journal: Journal, number: int = 0, type: str = "discovery") -> None:
    journal.record(search_type=type, filters={"n": number}, results_count=number, source="api")


def numbers(database: Database) -> list[int]:
    return [
        int(str(row[0])) for row in database.sql("SELECT results_count FROM search_history ORDER BY created_at, ctid")
    ]


def test_journal_writes_in_order_with_one_insert(database: Database, journal: Journal, flaky: Flaky) -> None:
    for number in range(100):
        look_up(journal, number)
    assert (journal.waiting, numbers(database)) == (100, [])
    assert journal.flush() == 100
    assert flaky.inserts == 1
    assert numbers(database) == list(range(100))
    ((id, user, filters, source, recent),) = database.sql(
        "SELECT id, user_id, filters, source, created_at > (now() AT TIME ZONE 'UTC') - interval '1 min' "
        "FROM search_history WHERE results_count = 7"
    )
    assert (len(str(id)), user, filters, source, recent) == (36, None, {"n": 7}, "api", True)
    assert journal.flush() == 0


def test_journal_a_full_batch_is_written_without_being_asked(database: Database, flaky: Flaky) -> None:
    journal = Journal(flaky, "search_history", HISTORY, interval=3600, batch=5)
    migrate(database.query, [journal])
    with journal:
        flaky.wrote.clear()
        for number in range(5):
            look_up(journal, number)
        assert flaky.wrote.wait(30)
    assert numbers(database) == list(range(5))


def test_journal_interval_writes_what_waits(database: Database, flaky: Flaky) -> None:
    with Journal(flaky, "search_history", HISTORY, interval=0.01) as journal:
        migrate(database.query, [journal])
        flaky.wrote.clear()
        look_up(journal, 1)
        assert flaky.wrote.wait(30)


def test_journal_records_of_many_threads_are_all_there(database: Database, journal: Journal) -> None:
    gate = threading.Barrier(8)

    def work(thread: int) -> None:
        gate.wait()
        for number in range(200):
            look_up(journal, thread * 1000 + number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    found = numbers(database)
    assert sorted(found) == sorted(thread * 1000 + number for thread in range(8) for number in range(200))
    for thread in range(8):
        mine = [number for number in found if number // 1000 == thread]
        assert mine == sorted(mine)


def test_journal_failing_database_keeps_the_newest_and_counts_the_rest(
    database: Database, flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(flaky, "search_history", HISTORY, interval=3600, keep=10)
    migrate(database.query, [journal])
    with journal, caplog.at_level(logging.WARNING, "stillwarm"):
        flaky.error = TierUnavailable("away")
        for number in range(15):
            look_up(journal, number)
        assert (journal.flush(), journal.waiting, journal.dropped) == (0, 10, 5)
        assert journal.flush() == 0
        assert caplog.text.count("waits with 10 records: away") == 1  # not once per attempt
        flaky.error = None
        assert journal.flush() == 10
        assert numbers(database) == list(range(5, 15))


def test_journal_batch_in_doubt_is_written_once(database: Database, journal: Journal, flaky: Flaky) -> None:
    for number in range(3):
        look_up(journal, number)
    flaky.after = TierUnavailable("the answer was lost")
    assert journal.flush() == 0
    assert journal.flush() == 3
    assert numbers(database) == [0, 1, 2]


def test_journal_record_that_the_table_refuses_does_not_hold_up_the_others(
    database: Database, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    database.sql("ALTER TABLE search_history ADD CHECK (results_count <> 3)")
    for number in range(6):
        look_up(journal, number)
    assert journal.flush() == 5
    assert (numbers(database), journal.dropped, journal.waiting) == ([0, 1, 2, 4, 5], 1, 0)
    assert "refused" in caplog.text


def test_journal_record_that_cannot_be_written_is_counted_and_not_raised(journal: Journal) -> None:
    journal.record(search_type="x" * 51, filters={}, results_count=1)
    journal.record(search_type="discovery", filters=object(), results_count=1)
    journal.record(filters={}, results_count=1)
    assert (journal.dropped, journal.waiting) == (3, 0)
    with pytest.raises(ConfigError, match="no column 'typo'; accepted: user_id, search_type"):
        journal.record(typo=1)


def test_journal_counts_and_frequent_values(journal: Journal, database: Database) -> None:
    for number in (1, 2, 2, 3, 3, 3):
        look_up(journal, number)
    look_up(journal, 9, "scoring")
    journal.flush()
    assert journal.count_by("search_type") == {"discovery": 6, "scoring": 1}
    assert journal.frequent("filters", 2) == [({"n": 3}, 3), ({"n": 2}, 2)]
    database.sql(
        "UPDATE search_history SET created_at = created_at - interval '2 days' WHERE search_type = 'discovery'"
    )
    assert journal.count_by("search_type", since="1d") == {"scoring": 1}
    assert journal.count_by("search_type", since=datetime.now(timezone.utc) - timedelta(days=3)) == {
        "discovery": 6, "scoring": 1,
    }  # fmt: skip
    assert journal.frequent("source", 1, since=timedelta(days=1)) == [("api", 1)]
    with pytest.raises(ConfigError, match="no column 'x'"):
        journal.count_by("x")


def test_journal_archive_moves_or_deletes_by_age(journal: Journal, database: Database) -> None:
    for number in range(10):
        look_up(journal, number)
    journal.flush()
    database.sql("UPDATE search_history SET created_at = created_at - interval '40 days' WHERE results_count < 7")
    assert journal.archive("30d", "search_history_old", batch=3) == 7
    assert sorted(numbers(database)) == [7, 8, 9]
    moved = database.sql("SELECT results_count FROM search_history_old ORDER BY 1")
    assert [row[0] for row in moved] == list(range(7))
    assert journal.archive("30d", "search_history_old") == 0
    database.sql("UPDATE search_history SET created_at = created_at - interval '40 days' WHERE results_count = 9")
    assert journal.archive("30d") == 1
    assert sorted(numbers(database)) == [7, 8]
    for wrong in ("search_history", 'a"b'):
        with pytest.raises(ConfigError, match="to_table"):
            journal.archive("30d", wrong)


def test_journal_closed_one_takes_nothing_and_says_what_was_lost(database: Database, flaky: Flaky) -> None:
    journal = Journal(flaky, "search_history", HISTORY, interval=3600)
    flaky.error = TierRejected("no table")
    look_up(journal)
    journal.close()
    journal.close()
    look_up(journal)
    assert (journal.waiting, journal.dropped) == (0, 2)


def test_journal_child_of_a_fork_does_not_write_what_the_parent_has_to(database: Database, journal: Journal) -> None:
    look_up(journal, 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if journal.waiting == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert journal.flush() == 1
    assert numbers(database) == [1]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"table": 'a"b'}, "table="),
        ({"columns": {}}, "columns="),
        ({"columns": {"id": "int"}}, "the table has it already"),
        ({"indexes": ["x"]}, "there is no column 'x'"),
        ({"batch": 0}, "batch=0"),
        ({"keep": -1}, "keep=-1"),
        ({"interval": 0}, "interval=0"),
    ],
)
def test_journal_wrong_argument_is_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Journal(lambda sql, params: [], **{"table": "t", "columns": {"a": "int"}, **options})  # type: ignore[arg-type]
