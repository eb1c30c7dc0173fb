"""Protocol alone: our receiver with a log that keeps nothing, against `storescp --ignore` and a raw TCP copy."""

from typing import Final

from benchmarks.arms import RATE, Arm, Comparison, Sample, alternate
from benchmarks.data import KINDS, template
from benchmarks.peers import OURS_WITHOUT_LOG, STORESCP_IGNORE, Running
from benchmarks.scenarios.network import CEILING, ceiling_arm, peer_arm, receivers
from benchmarks.scenarios.scale import Scale
from benchmarks.tcp_copy import copy_seconds

TCP_COPY: Final = "raw TCP copy"
_AIM: Final = 1.3  # of CT
_AIM_OF_OTHERS: Final = 1.2


def run(scale: Scale) -> list[Comparison]:
    """One comparison for each kind of image and number of senders."""
    cases = [("ct", 1), ("ct", 16)]
    if not scale.quick:
        cases += [("mr", 1), ("mr", 16), ("dx", 1), ("dx", 16)]
    with receivers(scale, OURS_WITHOUT_LOG, STORESCP_IGNORE) as started:
        return [_compare(scale, started, kind, senders) for kind, senders in cases]


def _tcp_copy_arm(scale: Scale, kind: str, senders: int) -> Arm:
    def run() -> Sample:
        size = scale.instances(kind, senders) * template(KINDS[kind]).size
        return {RATE: size / copy_seconds(size, senders)}

    return Arm(TCP_COPY, run)


def _compare(scale: Scale, started: list[Running], kind: str, senders: int) -> Comparison:
    arms = [peer_arm(scale, receiver, kind, senders) for receiver in started]
    arms += [ceiling_arm(scale, kind, senders), _tcp_copy_arm(scale, kind, senders)]
    title = f"Protocol alone, {senders} sender{'s' * (senders > 1)}, {KINDS[kind].label}"
    scale.progress(title)
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    # How fast each is depends on who else is at work on the machine; what a byte costs hardly does.
    aim = _AIM if kind == "ct" else _AIM_OF_OTHERS
    comparison.add_ratio(OURS_WITHOUT_LOG.name, STORESCP_IGNORE.name, aim, guarded=False)
    comparison.add_cost_ratio(OURS_WITHOUT_LOG.name, STORESCP_IGNORE.name)
    comparison.add_ratio(OURS_WITHOUT_LOG.name, CEILING, guarded=False)
    comparison.add_ratio(OURS_WITHOUT_LOG.name, TCP_COPY, guarded=False)
    comparison.family, comparison.senders = f"Protocol alone, {KINDS[kind].label}", senders
    comparison.settings = {peer.name: peer.settings for peer in (OURS_WITHOUT_LOG, STORESCP_IGNORE)}
    return comparison
