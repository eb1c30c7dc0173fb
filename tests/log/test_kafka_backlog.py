"""How old the oldest record is that waits in the instance topic, told from looks at marks and ends."""

from ingest.log.kafka_backlog import Oldest


class Topic:
    """Two partitions, and the group that reads them."""

    def __init__(self, marks: list[int], ends: list[int]) -> None:
        self.now, self.marks, self.ends = 100.0, marks, ends
        self.oldest = Oldest(lambda: self.now)

    def age(self, seconds: float = 0) -> float:
        """As a look finds it that comes so much later."""
        self.now += seconds
        return self.oldest.age(self.marks, self.ends)


def test_a_partition_that_nobody_reads_has_the_oldest() -> None:
    """However far the other is."""
    topic = Topic([5, 7], [5, 7])
    assert topic.age() == topic.age(60) == 0
    topic.ends = [6, 9]
    assert topic.age() == 0
    for _ in range(10):
        topic.ends[1] += 5
        topic.marks[1] = topic.ends[1]
        topic.age(2)
    assert topic.age() == 20
    topic.marks[0] = 6
    assert topic.age() == 0


def test_what_is_settled_is_no_longer_the_oldest() -> None:
    """Then it is what came next; what comes after all is settled is as old as its own coming."""
    topic = Topic([0, 0], [0, 0])
    topic.age()
    for count in range(1, 6):
        topic.ends = [count, 0]
        topic.age(2)
    assert topic.age() == 8
    topic.marks = [3, 0]
    assert topic.age() == 2
    topic.marks = [5, 0]
    assert topic.age(3600) == 0
    topic.ends = [6, 0]
    assert topic.age(2) == 0
    assert topic.age(5) == 5


def test_what_waits_at_the_start_is_as_old_as_the_start() -> None:
    """Nothing older can be told of it."""
    topic = Topic([0, 0], [100, 100])
    assert topic.age() == 0
    topic.ends = [200, 200]
    assert topic.age(30) == 30
    topic.marks = [100, 100]
    assert topic.age(10) == 10


def test_days_of_backlog_take_no_more_room() -> None:
    """And the oldest is told all the same."""
    topic = Topic([0, 0], [0, 0])
    for _ in range(10_000):
        topic.ends[0] += 1
        topic.age(2)
    assert len(topic.oldest._looks) <= 1024
    assert topic.age() == 2 * 9999
    topic.marks[0] = 9000
    assert 2 * 900 <= topic.age() <= 2 * 1000
