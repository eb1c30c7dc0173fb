"""What waits in the spool, told from looks at its end."""

from ingest.contract.checkpoint import CorruptCheckpoint
from ingest.log.spool_backlog import SpoolBacklog


class Log:
    """A spool of instances of 10 bytes, and its workers."""

    def __init__(self) -> None:
        self.now, self.end, self.mark, self.acknowledged = 100.0, 70, 70, 0
        self.backlog = SpoolBacklog(
            lambda: self.end, lambda: self.mark, lambda: self.acknowledged, lambda: self.now
        )

    def second(self, instances: int, settled: int = 0) -> None:
        """One second, in which so many come and so many are settled."""
        self.now += 1
        self.end += 10 * instances
        self.mark += 10 * settled
        self.acknowledged += instances
        self.backlog.look()

    @property
    def told(self) -> tuple[float, float]:
        return self.backlog.instances(), self.backlog.age()


def test_instances_wait_until_they_are_settled() -> None:
    """With every worker down they grow in number and age; then the oldest go first."""
    log = Log()
    assert log.told == (0, 0)
    for _ in range(5):
        log.second(3)
    assert log.told == (15, 4)
    log.second(0, settled=6)
    assert log.told == (9, 3)
    log.second(0, settled=9)
    assert log.told == (0, 0)


def test_an_hour_of_quiet_makes_nothing_old() -> None:
    """What comes after it is as old as its own coming."""
    log = Log()
    log.second(1, settled=1)
    for _ in range(3600):
        log.second(0)
    log.second(2)
    log.now += 5
    assert log.told == (2, 5)


def test_days_of_backlog_take_no_more_room() -> None:
    """And are told all the same."""
    log = Log()
    for _ in range(20_000):
        log.second(1)
    assert len(log.backlog._looks) <= 4097
    assert log.told[0] == 20_000
    log.second(0, settled=19_990)
    assert 10 <= log.told[0] <= 10 + 16


def test_hours_of_work_that_nobody_asks_about_take_no_room() -> None:
    """What is settled is let go of without a scrape of the admin port."""
    log = Log()
    for _ in range(3600):
        log.second(4, settled=4)
    assert len(log.backlog._looks) <= 64
    log.second(3)
    assert log.told == (3, 0)


def test_a_checkpoint_that_cannot_be_read_ends_no_look() -> None:
    """The log's end is noted all the same, and told once it can be read again."""
    log = Log()
    read, log.backlog._mark = log.backlog._mark, unreadable
    for _ in range(200):
        log.second(1)
    log.backlog._mark = read
    assert log.told == (200, 199)


def unreadable() -> int:
    raise CorruptCheckpoint("damaged")


def test_what_is_no_instance_does_not_wait() -> None:
    """A record of another kind moves the end, too."""
    log = Log()
    log.now, log.end = log.now + 1, log.end + 500
    log.backlog.look()
    assert log.told == (0, 0)


def test_what_waits_from_before_the_start_is_not_counted() -> None:
    """Its number is not known; what came since is told, and is older than it is at most."""
    log = Log()
    log.end += 1000
    log.backlog = SpoolBacklog(lambda: log.end, lambda: log.mark, lambda: log.acknowledged, lambda: log.now)
    log.second(2)
    assert log.told == (2, 0)
