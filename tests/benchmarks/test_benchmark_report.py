"""The report folder has tables, plots and every sample; the profile reads what strace and perf print; the slope is fitted."""

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import tracing
from benchmarks.arms import RATE, Comparison, Ratio
from benchmarks.report_folder import main, read_results, write_report, write_results
from benchmarks.scenarios.soak import bound, fit, growth, over_noise
from benchmarks.tracing import Samples, SystemCalls


def comparisons() -> list[Comparison]:
    receive = [
        Comparison(
            f"Receive, {senders} senders",
            "MB/s",
            {"ours": [{RATE: senders * 1e8}, {RATE: senders * 2e8}], "theirs": [{RATE: 1e8}]},
            [Ratio("ours / theirs", (1.0,))],
            family="Receive, CT",
            senders=senders,
        )
        for senders in (1, 16)
    ]
    latency = Comparison("Latency at half load", "ms (p99)", {"ours": [{RATE: 3.0}]})
    latency.curves = {"ours": [(0.5, 1.0), (0.99, 3.0), (0.999, 9.0), (1.0, 12.0)]}
    memory = Comparison("Memory over 1 min", "MiB", {"receiver": [{RATE: 60.0}]})
    memory.curves = {"receiver": [(0.0, 60.0), (60.0, 61.0)]}
    hops = Comparison("Where the processor time goes", "CPU ms/MB", {"receiver, event loop": [{RATE: 0.4}]})
    return [*receive, latency, memory, hops]


def test_the_report_folder_is_complete(tmp_path: Path) -> None:
    """A plot each of throughput, latency, memory and processor time, all shown; equal figures give equal files."""
    write_report(tmp_path, {"CPU": "x"}, {"volume": "1 GB"}, comparisons())
    plots = sorted(tmp_path.glob("*.svg"))
    assert [path.stem for path in plots] == [
        "latency-at-half-load",
        "memory-over-1-min",
        "receive-ct",
        "where-the-processor-time-goes",
    ]
    text = (tmp_path / "README.md").read_text()
    first = {path: path.read_bytes() for path in plots}
    for path in plots:
        assert f"]({path.name})" in text
        assert ET.parse(path).getroot().tag.endswith("svg")
    assert "ours" in (tmp_path / "receive-ct.svg").read_text()
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["comparisons"][0]["samples"]["ours"][1][RATE] == 2e8
    (tmp_path / "old.svg").touch()
    write_report(tmp_path, {"CPU": "x"}, {"volume": "1 GB"}, comparisons())
    assert {path: path.read_bytes() for path in tmp_path.glob("*.svg")} == first


def test_one_report_is_made_of_several_runs(tmp_path: Path) -> None:
    """What a run kept is read again without loss, and the report of two has the comparisons of both."""
    facts = {"CPU": "x", "load before": "0.1"}
    every = comparisons()
    paths = [tmp_path / "one.json", tmp_path / "other.json"]
    for path, part in zip(paths, (every[:2], every[2:]), strict=True):
        write_results(path, facts, {"volume": "5 GB"}, part)
    assert read_results(json.loads(paths[1].read_text())) == every[2:]
    main(tmp_path / "report", paths)
    text = (tmp_path / "report" / "README.md").read_text()
    assert all(f"## {one.title}\n" in text for one in every)
    assert len(list((tmp_path / "report").glob("*.svg"))) == 4


def test_system_calls_are_counted_by_name() -> None:
    """Each call once, though another thread interrupts it in the trace; only reading and writing move bytes."""
    trace = """\
812   recvfrom(9, "\\4\\0\\0\\0@\\0", 65536, 0, NULL, NULL) = 16390
812   pwritev(7, [{iov_base="x = 9", iov_len=4096}], 1, 8192 <unfinished ...>
813   futex(0x7f, FUTEX_WAKE_PRIVATE, 1)  = 1
812   <... pwritev resumed>)              = 4096
812   fdatasync(7)                        = 0
813   epoll_wait(5, [], 1024, 12)         = -1 EINTR (Interrupted system call)
814   +++ exited with 0 +++
"""
    found = SystemCalls.parse(trace)
    assert found.counts == {"recvfrom": 1, "pwritev": 1, "futex": 1, "fdatasync": 1, "epoll_wait": 1}
    assert found.moved == 16390 + 4096


def test_samples_that_copy_are_summed() -> None:
    """perf's shares by symbol; those of functions that copy, of libc and kernel alike, are one figure."""
    report = """\
# Overhead  Shared Object      Symbol
    31.20%  libc.so.6          [.] __memmove_avx512_unaligned_erms
    12.50%  [kernel.kallsyms]  [k] rep_movs_alternative
    10.00%  python3.11         [.] _PyEval_EvalFrameDefault      -      -
"""
    found = Samples.parse(report)
    assert found.copying == pytest.approx(0.437)
    share, symbol = found.symbols[2]
    assert symbol == "_PyEval_EvalFrameDefault (python3.11)"
    assert share == pytest.approx(0.1)


def test_threads_are_told_apart() -> None:
    """Processor time and waits of the main thread and of the others, each its own."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    before = tracing.main_thread(os.getpid()), tracing.other_threads(os.getpid())
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    main, other = tracing.main_thread(os.getpid()) - before[0], tracing.other_threads(os.getpid()) - before[1]
    ended.set()
    thread.join()
    assert main.cpu >= 0.15
    assert other.cpu < main.cpu


def test_a_leak_is_told_from_noise() -> None:
    """A slope of 6 MiB an hour within noise of 1 MiB is found; no slope stays within two standard errors, mostly."""
    generator = random.Random(7)

    def series(slope: float) -> list[tuple[float, float]]:
        return [(float(t), 60 + slope * t / 3600 + generator.gauss(0, 1)) for t in range(3600)]

    leak, none = fit(series(6.0)), fit(series(0.0))
    assert leak.value == pytest.approx(6.0, abs=1.0)
    assert leak.value > 2 * leak.error
    assert abs(none.value) < 3 * none.error
    assert fit([(0.0, 1.0)] * 3) == (0.0, 0.0)


def test_images_in_work_hide_no_leak() -> None:
    """A large image for some seconds is 150 MiB above a floor that rises by 6 MiB an hour."""
    generator = random.Random(7)

    def series(slope: float) -> Iterator[tuple[float, float]]:
        for second in range(0, 3600, 10):
            image = generator.uniform(20, 150) if generator.random() < 0.4 else 0.0
            yield from ((float(t), 60 + slope * t / 3600 + image) for t in range(second, second + 10))

    leak, none = fit(list(series(6.0))), fit(list(series(0.0)))
    assert leak.value == pytest.approx(6.0, abs=1.0)
    assert over_noise(leak) > 1
    assert over_noise(none) <= 1


def test_a_codec_may_leak_until_it_is_replaced() -> None:
    """What starts anew after so many frames is told from what goes on for good, and from a larger leak."""

    def series(hours: float, pace: float, life: float) -> list[tuple[float, float]]:
        seconds = range(round(hours * 3600))
        return [(float(t), 80 + pace * (t / 3600 % life)) for t in seconds]

    pace, life = 7.0, bound(2) / 7.0  # MiB and frames of an hour under a day's mix
    for hours in (1 / 6, 1.0, 2.0, 12.0):
        assert growth(series(hours, pace, life)) <= bound(2)
    assert growth(series(1.0, pace, life=100.0)) > bound(2)
    assert growth(series(1 / 6, 10 * pace, life=100.0)) > bound(2)
