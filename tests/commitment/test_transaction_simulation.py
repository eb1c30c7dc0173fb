"""The state machine of storage commitment, under thousands of schedules with crashes, repetitions and rivals."""

import pytest

from ingest.commitment.transactions import ASKINGS, Action
from ingest.contract.commitments import Finding
from tests.support.commitment_world import LIMIT, World


@pytest.mark.parametrize("receivers", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_every_request_leads_to_one_report(seed: int, receivers: int) -> None:
    """Whatever crashes when: each accepted request is reported, the same each time, and never better than proved."""
    for number in range(8):
        world = World(seed * 1000 + number, receivers)
        world.run(requests=4)
        world.check()


@pytest.mark.parametrize("receivers", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_lost_fences_and_records_end_as_not_found_out(seed: int, receivers: int) -> None:
    """Whatever vanishes, each request comes to an end, and no success is said without its proof."""
    given_up = 0
    for number, losses in enumerate([0.1, 0.5, 0.9, 0.9]):
        world = World(seed * 1000 + number, receivers, losses)
        world.run(requests=4)
        world.check()
        given_up += world.given_up
    assert given_up


def test_a_round_without_an_answer_is_asked_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fences after the source's limit each time, so many times, and then what was not found out says so."""
    world = World(1, 1)
    (receiver,) = world.receivers
    request = world.request(0)
    request.proved_from = dict.fromkeys(request.references, 0.0)
    request.trouble_until = 0.0
    work = world.work
    monkeypatch.setattr(world, "chance", lambda _: False)
    monkeypatch.setattr(world, "work", lambda: None)
    receiver.ask(request)
    asked = world.fences[:]
    while receiver.read_to < len(world.log.entries):
        receiver.machine.apply(world.log.entries[receiver.read_to][0], world.clock())
        receiver.read_to += 1
    receiver.machine.replaying = False
    for asking in range(1, ASKINGS):
        world.fences.clear()
        assert {step.action for step in receiver.machine.due(asking * LIMIT - 1.0, 1)} <= {Action.LAGGING}
        world.now = asking * LIMIT
        steps = [step for step in receiver.machine.due(world.now, 1) if step.action is not Action.LAGGING]
        assert [step.action for step in steps] == [Action.ASK_AGAIN]
        receiver.act(steps[0], 0)
        assert world.fences == asked
    world.now = ASKINGS * LIMIT
    steps = [step for step in receiver.machine.due(world.now, 1) if step.action is not Action.LAGGING]
    assert [step.action for step in steps] == [Action.GIVE_UP]
    receiver.act(steps[0], 0)
    late = world.fences[0]
    world.fences = [late]
    work()
    while receiver.read_to < len(world.log.entries):
        receiver.machine.apply(world.log.entries[receiver.read_to][0], world.clock())
        receiver.read_to += 1
    (transaction,) = receiver.machine
    known = receiver.known(transaction, transaction.base + transaction.round)
    assert not known.findings.verdict().committed, "an answer after that changes nothing"
    assert {one.finding for one in known.findings.verdict().failed} == {Finding.UNDECIDED}


@pytest.mark.long
@pytest.mark.parametrize("receivers", [1, 2, 3])
def test_thousands_of_schedules(receivers: int) -> None:
    """The long form."""
    for seed in range(100_000, 101_500):
        world = World(seed, receivers, losses=[0.0, 0.0, 0.2, 0.9][seed % 4])
        world.run(requests=4)
        world.check()
