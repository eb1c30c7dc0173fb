"""Arms that send instances to a receiver."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.arms import COST, RATE, Arm, Sample
from benchmarks.load import Load, Sent, discard_sink, send
from benchmarks.peers import Peer, Running, running
from benchmarks.processes import CLOCK_TICKS, cpu_seconds, settle_disk
from benchmarks.releaser import Releaser
from benchmarks.scenarios.scale import Scale

CEILING: Final = "sender's ceiling (discard sink)"
_runs = itertools.count(1)


def next_run() -> int:
    """A number for a load's UIDs: no UID is sent twice to a receiver."""
    return next(_runs)


def load_of(scale: Scale, kind: str, senders: int, share: float = 1.0) -> Load:
    """One round's load; many senders are spread over two processes, so that one core never limits them."""
    return Load(kind, scale.instances(kind, senders, share), senders, min(senders, 2), run=next_run())


def sample_of(sent: Sent, receiver_cpu: float | None = None) -> Sample:
    """What a sent load says."""
    sample = {
        RATE: sent.rate,
        "volume": float(sent.data_bytes),
        "instances_per_second": sent.instances / sent.seconds,
        "p50": sent.latency(0.5),
        "p99": sent.latency(0.99),
        "p99.9": sent.latency(0.999),
        "sender_cpu_per_byte": sent.cpu_seconds / sent.data_bytes,
    }
    if receiver_cpu is not None:
        sample[COST] = receiver_cpu / sent.data_bytes
    return sample


def ceiling_arm(scale: Scale, kind: str, senders: int) -> Arm:
    """The sender alone."""

    def run() -> Sample:
        load = load_of(scale, kind, senders)
        with discard_sink(load) as address:
            return sample_of(send(address, load))

    return Arm(CEILING, run)


def peer_arm(scale: Scale, receiver: Running, kind: str, senders: int) -> Arm:
    """A receiver under load; what it stored is deleted before the next arm."""

    def run() -> Sample:
        load = load_of(scale, kind, senders, receiver.peer.share)
        with ExitStack() as stack:
            if receiver.peer.durable:
                stack.enter_context(Releaser(receiver.folder))
            before = cpu_seconds(receiver.process.pid)
            sent = send(receiver.address, load)
            # The kernel counts in ticks: what a short round shows as nothing was less than one.
            used = max(cpu_seconds(receiver.process.pid) - before, 1 / CLOCK_TICKS)
        receiver.process.check()
        settle_disk(receiver.folder)
        return sample_of(sent, used)

    return Arm(receiver.peer.name, run)


@contextmanager
def receivers(scale: Scale, *peers: Peer) -> Iterator[list[Running]]:
    """Start all and let each receive a little; idle ones cost the one under load nothing.

    Ours receives a whole round, so that the segments which it recycles later have been written once.
    """
    with ExitStack() as stack:
        started = [stack.enter_context(running(peer, scale.scratch)) for peer in peers]
        for receiver in started:
            load = load_of(scale, "ct", 16) if receiver.peer.durable else Load("ct", 16, 16, run=next_run())
            with ExitStack() as releasing:
                if receiver.peer.durable:
                    releasing.enter_context(Releaser(receiver.folder))
                send(receiver.address, load)
            settle_disk(receiver.folder)
        yield started
