"""What SIGHUP takes and what waits for a restart: the receiver says of each setting what is so."""

import pytest

from ingest.contract.settings import ReceiverSettings, Settings
from ingest.receiver.reload import changed_and_taken, changed_for_restart


@pytest.mark.parametrize(
    ("changes", "taken", "waiting"),
    [
        ({"unknown_sources": "refuse"}, ["receiver.unknown_sources"], []),
        ({"maximum_instance_size": 1}, ["receiver.maximum_instance_size"], []),
        ({"certificate_interval": 1.0}, [], ["receiver.certificate_interval"]),  # the next look is under way
        ({"port": 104}, [], ["receiver.port"]),
    ],
)
def test_each_change_is_taken_or_named(
    changes: dict[str, object], taken: list[str], waiting: list[str]
) -> None:
    """What nobody takes must not be told of as taken."""
    before = Settings()
    after = before.model_copy(update={"receiver": ReceiverSettings.model_validate(changes)})
    assert changed_and_taken(before, after) == taken
    assert changed_for_restart(before, after) == waiting
