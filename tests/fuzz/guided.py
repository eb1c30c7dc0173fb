"""Fuzzing guided by coverage: `make fuzz`, or `python -m tests.fuzz.guided TARGET SECONDS FOLDER`.

Atheris (libFuzzer for Python) keeps each input that reaches code which no other has reached, and changes those further. What it
keeps goes to FOLDER/TARGET, so that the next run begins where the last one ended. A finding ends the run and is left in FOLDER:
cut it down with `test_fuzz.cut_down` and add it to ``corpus/TARGET.txt``.
"""

import sys
import time
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["ingest", "workers"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS
    from tests.fuzz.test_fuzz import kept_of

LONGEST: Final = 16 * 1024  # bytes of an input; the seeds are shorter
SLOWEST: Final = 10.0  # s of processor time that an input may take
_HANGING: Final = 300  # s; of a process for which others leave little


def main(name: str, seconds: float, folder: Path) -> None:
    """Feed one target; libFuzzer ends the process, with 0 unless something was found."""
    target = TARGETS[name]
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate((*target.seeds, *kept_of(name))):
        (corpus / f"seed-{number}").write_bytes(seed)

    def feed(data: bytes) -> None:
        begun = time.process_time()
        target.feed(data)
        assert time.process_time() - begun < SLOWEST, "too slow"

    options = [
        f"-max_total_time={int(seconds)}", f"-max_len={LONGEST}", f"-timeout={_HANGING}", "-print_final_stats=1",
        f"-artifact_prefix={folder}/{name}-", "-verbosity=0", "-rss_limit_mb=2048",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
