"""What the documents show is true: commands run, transcripts are what comes out, settings load, names exist.

A command in a fence ``sh`` is run in the order of README.md, unless `NOT_RUN` has it with the reason; those are looked
at all the same. A fence ``console`` is a transcript: what stands under a command must be among what it prints.
"""

import contextlib
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click
import pytest
from click.testing import CliRunner

from benchmarks.processes import free_port
from ingest.cli.group import main
from ingest.contract.settings import Settings
from tests.support.instruments import instruments

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = (
    "README.md", "CONTRIBUTING.md", "SECURITY.md", "CONFORMANCE.md", "ingest/receiver/README.md",
    "ingest/commitment/README.md", "ingest/log/README.md", "k8s/README.md", "benchmarks/README.md",
)  # fmt: skip
STOP: Final = "# 2. Ctrl-C in the terminal of serve"  # a step of a procedure that is no command

# Beginnings of commands that are shown and not run here, each with the reason.
NOT_RUN: Final = {
    "make install": "was run before this",
    "make check": "CI runs it before this",
    "make test": "is running",
    "make bench": "CI runs it before this; the full form takes an hour",
    "make crash": "hours",
    "make fuzz": "as long as one likes; tests/fuzz has the short form",
    "make profile": "needs perf and strace to say all",
    "make k8s": "needs root, and builds Kubernetes",
    "make sbom": "makes another environment, from the network",
    "make audit": "asks PyPI",
    "make serve-distributed": "tests/conformance/test_serve_distributed.py runs its parts",
    ".ci/run": "runs this",
    ".venv/bin/pytest": "is running",
    "FUZZ_SECONDS=60": "minutes; tests/fuzz has the short form",
    ".venv/bin/python": "writes the documents, which test_readme.py compares; or measures for minutes",
    "export PATH=": "each command of the project is run in this process",
    "dicom-ingest topics create": "needs Kafka: tests/cli/test_topics.py",
    "dicom-ingest receiver": "needs Kafka: tests/conformance/test_serve_distributed.py",
    "dicom-ingest worker": "needs Kafka: tests/conformance/test_serve_distributed.py",
    "dicom-ingest send folder/ --to archive": "needs another archive: tests/sender/test_sender_commitment.py",
    "dicom-ingest send image.dcm --to": "needs a cluster: tests/cluster",
    "buildah": "needs root: tests/kubernetes/test_image.py and tests/cluster",
    "kubectl": "needs a cluster: tests/cluster",
    "(printf": "needs a cluster: tests/monitoring has the rules judged by promtool",
}


class Fence(NamedTuple):
    """A block of a document."""

    document: str
    line: int
    kind: str
    lines: tuple[str, ...]


def fences() -> Iterator[Fence]:
    for document in DOCUMENTS:
        kind, begun, within = "", 0, list[str]()
        for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
            if not line.startswith("```"):
                within.append(line)
            elif begun:
                yield Fence(document, begun, kind, tuple(within))
                begun = 0
            else:
                kind, begun, within = line.removeprefix("```"), number, []
        assert not begun, f"{document}:{begun}"


FENCES: Final = tuple(fences())


def commands_of(fence: Fence) -> Iterator[str]:
    """Each command, without what is said of it; a line that ends in a backslash goes on."""
    for line in "\n".join(fence.lines).replace("\\\n", " ").splitlines():
        if line.startswith(STOP):
            yield STOP
        elif command := " ".join(re.sub(r"(^|\s+)#.*", "", line).split()):
            yield command


def shown() -> list[tuple[Fence, str]]:
    return [(fence, command) for fence in FENCES if fence.kind == "sh" for command in commands_of(fence)]


def why_not_run(command: str) -> str:
    return next((why for begin, why in NOT_RUN.items() if command.startswith(begin)), "")


def test_every_block_says_what_it_is() -> None:
    """So that no command hides in one that nobody runs."""
    assert {fence.kind for fence in FENCES} == {"sh", "console", "toml", "text"}
    for document in DOCUMENTS:
        before = ""
        for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
            assert before.strip() or not line.startswith("    "), (
                f"{document}:{number}: a block without fence"
            )
            before = line


def test_no_reason_outlives_its_command() -> None:
    """What is not run any more is not excused any more."""
    for begin in NOT_RUN:
        assert any(command.startswith(begin) for _, command in shown()), begin


def parsed(words: list[str]) -> None:
    """A command of ours with its options, not run.

    Raises:
        click.UsageError: there is no such command or option.
    """
    command: click.Command | None = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        command = command.get_command(context, words.pop(0))
    assert command is not None
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}


def looked_at(command: str) -> None:
    """That what a command names is there."""
    words = shlex.split(command)
    while "=" in words[0]:
        words.pop(0)
    program = Path(words[0]).name
    if program == "dicom-ingest":
        parsed(words[1:])
    elif program == "make":
        goals = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert goals is not None
        assert words[1] in goals[1].split()
    elif words[1:2] == ["-m"]:
        assert importlib.util.find_spec(words[2]), command
    for option, path in itertools.pairwise(words):
        if option in ("-k", "-f") and program in ("kubectl", "buildah"):
            assert (ROOT / path).exists(), command
    for word in words:
        if word.startswith(("tests/", "k8s/", "benchmarks/")):
            assert (ROOT / word.rstrip(")")).exists(), command


@pytest.mark.parametrize(
    ("fence", "command"), shown(), ids=lambda value: value if isinstance(value, str) else value.document
)
def test_what_a_command_names_is_there(fence: Fence, command: str) -> None:
    """Targets of make, commands and options of ours, files, modules: whether it is run here or not."""
    if not command.startswith(("#", "export")):
        looked_at(command)


def test_commands_in_sentences_are_there() -> None:
    """`dicom-ingest X` and `make X` between backticks, too."""
    for document in (*DOCUMENTS, "k8s/alerts.yaml", "CHANGELOG.md"):
        for span in re.findall(r"`((?:dicom-ingest|make) [a-z][^`]*)`", (ROOT / document).read_text()):
            words = re.split(r"[\s|]+", span)
            if words[0] == "make":
                looked_at(" ".join(words[:2]))
            else:
                assert main.get_command(click.Context(main), words[1]), f"{document}: {span}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_are_there(document: str) -> None:
    """Between backticks, from the root of the repository; with an asterisk, at least one."""
    for span in re.findall(
        r"`((?:ingest|workers|tests|benchmarks|k8s)/[^`\s]*)`", (ROOT / document).read_text()
    ):
        if "NAME" not in span:
            assert any(ROOT.glob(span.rstrip("/"))), span


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.kind == "toml"], ids=str)
def test_settings_that_are_shown_are_valid(fence: Fence) -> None:
    """Each example is a settings file, or one of `plan`."""
    tree = tomllib.loads("\n".join(fence.lines))
    if "modality" not in tree:
        Settings.model_validate(tree)


def test_every_metric_is_explained() -> None:
    """Each name stands in the README, and the README names none that there is not."""
    names = {one.description.name for one in instruments()}
    operations = (
        (ROOT / "README.md").read_text().partition("### Metrics, probes and logs")[2].partition("\n## ")[0]
    )
    rows = [line for line in operations.splitlines() if line.startswith("| `") and "/`" not in line]
    explained = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    explained |= set(re.findall(r"`dicom_ingest_([a-z_]+)`", operations))
    assert names <= explained
    assert {name for name in explained if "." not in name} <= names | {"metrics", "livez", "readyz"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """To a file that there is, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {
                re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings
            }, target


class Walk:
    """One who follows the README in a clone of his own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.serving: subprocess.Popen[bytes] | None = None
        for entry in ROOT.iterdir():
            if entry.name != "data":
                (folder / entry.name).symlink_to(entry)
        (image,) = (ROOT / ".venv").glob("lib/python3*/site-packages/pydicom/data/test_files/CT_small.dcm")
        shutil.copy(image, folder / "image.dcm")
        (folder / "folder").mkdir()
        (folder / "folder" / "cut.dcm").write_bytes(image.read_bytes()[:-100])

    def run(self, command: str) -> str:
        """What it prints; it must succeed."""
        if command == "make serve":
            return self.serve()
        if command == STOP:
            return self.stop()
        if "DIGEST" in command:
            found = (self.folder / "data/store/quarantine").glob("*/*/*")
            entry = next(
                one for one in found if re.fullmatch("[0-9a-f]{64}", one.name)
            )  # and none that repeats it
            command = command.replace("DIGEST", entry.name)
        command = command.replace(" 11112 ", f" {self.port} ")
        words = shlex.split(command)
        if Path(words[0]).name != "dicom-ingest" or ">" in words or "&&" in words:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            assert done.returncode == 0, command + done.stdout + done.stderr
            return done.stdout
        return self.ours([found for word in words[1:] for found in self.expanded(word)])

    def expanded(self, word: str) -> list[str]:
        """As a shell does with asterisks."""
        return sorted(map(str, Path().glob(word))) if "*" in word else [word]

    def ours(self, arguments: list[str]) -> str:
        """A command of ours, in this process."""
        if arguments[0] == "send" and "--to" not in arguments:
            arguments += ["--to", f"127.0.0.1:{self.port}"]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        stays = arguments[:2] == ["quarantine", "replay"]  # an image that is cut off is so again
        assert done.exit_code == int(stays), f"{arguments} {done.output}"
        return done.stdout

    def serve(self) -> str:
        """`make serve`, until it says that it is ready."""
        log = self.folder / "serve.log"
        environment = os.environ | {"LISTEN": f"127.0.0.1:{self.port}", "WORKERS": "1"}
        with log.open("wb") as output:
            self.serving = subprocess.Popen(
                ["make", "serve"],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait(lambda: "is ready" in log.read_text() or self.serving is None or self.serving.poll() is not None)
        assert "is ready" in log.read_text(), log.read_text()
        return log.read_text()

    def stop(self) -> str:
        """Ctrl-C, which the terminal sends to all of them."""
        if self.serving is not None:
            os.killpg(self.serving.pid, signal.SIGTERM)
            self.serving.wait(120)
            self.serving = None
        return ""

    def settle(self) -> None:
        """Until nothing is on its way."""
        wait(lambda: '"backlog": 0' in self.ours(["status", "--quick", "--json"]))


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.real
def test_commands_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, from `make serve` to the restore of a backup, with what the transcripts show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    walk = Walk(tmp_path)
    ran = 0
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(walk.stop)
        for fence in FENCES:
            if fence.kind == "sh":
                for command in commands_of(fence):
                    if not why_not_run(command):
                        walk.run(command)
                        ran += 1
            elif fence.kind == "console":
                walk.settle()
                ran += compare(walk, fence)
    assert ran > 20  # the documents show at least so many


def compare(walk: Walk, fence: Fence) -> int:
    """Each line under a command is among those that it prints, in their order."""
    printed: Iterator[str] = iter(())
    for line in fence.lines:
        if line.startswith("$ "):
            printed = iter(walk.run(line.removeprefix("$ ")).splitlines())
        else:
            assert any(one.rstrip() == line.rstrip() for one in printed), (
                f"{fence.document}:{fence.line}: {line}"
            )
    return sum(line.startswith("$ ") for line in fence.lines)
