"""Protocol alone: our receiver with a log that keeps nothing, against `storescp --ignore` and a raw TCP sink."""

from benchmarks.arms import Comparison, alternate
from benchmarks.data import KINDS
from benchmarks.peers import OURS_WITHOUT_LOG, STORESCP_IGNORE, Running
from benchmarks.scenarios.network import CEILING, ceiling_arm, peer_arm, receivers
from benchmarks.scenarios.scale import Scale

AIM = 1.2


def run(scale: Scale) -> list[Comparison]:
    """One comparison for each kind of image and number of senders."""
    cases = [("ct", 1), ("ct", 16)]
    if not scale.quick:
        cases += [("mr", 1), ("mr", 16), ("dx", 1), ("dx", 16)]
    with receivers(scale, OURS_WITHOUT_LOG, STORESCP_IGNORE) as started:
        return [_compare(scale, started, kind, senders) for kind, senders in cases]


def _compare(scale: Scale, started: list[Running], kind: str, senders: int) -> Comparison:
    arms = [peer_arm(scale, receiver, kind, senders) for receiver in started]
    arms.append(ceiling_arm(scale, kind, senders))
    title = f"Protocol alone, {senders} sender{'s' * (senders > 1)}, {KINDS[kind].label}"
    scale.progress(title)
    comparison = Comparison(title, "MB/s", alternate(arms, scale.rounds, scale.progress))
    comparison.add_ratio(OURS_WITHOUT_LOG.name, STORESCP_IGNORE.name, AIM)
    comparison.add_ratio(OURS_WITHOUT_LOG.name, CEILING)
    return comparison
