"""A load, a record of everything it was told, and the invariants I1 to I7 looked at from outside.

with Run(pipeline, seed, case) as run:       # senders are under way
    run.kill(run.receivers()[0])             # ... the fault
run.check()                                  # heals, settles, and checks

`make crash SEEDS=N` runs N seeds of each row, ROWS=NAME of some rows; CI one. A failure names its seed: CRASH_FIRST_SEED=… SEEDS=1 repeats it.

``senders``  modalities that never give up, and what they were told
``topic``    the log and the group, as Kafka itself has them
``watch``    commits, keys and memory, looked at all the time
``run``      one seeded run of one fault, and the checks at its end
"""

from tests.support.crash.run import Run, marks, seeds, wait_expired
from tests.support.crash.senders import Load, Sent
from tests.support.crash.topic import committed, ends, is_read, members, read_topic
from tests.support.crash.watch import is_object, uid_of

__all__ = [
    "Load",
    "Run",
    "Sent",
    "committed",
    "ends",
    "is_object",
    "is_read",
    "marks",
    "members",
    "read_topic",
    "seeds",
    "uid_of",
    "wait_expired",
]
