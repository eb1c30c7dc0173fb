"""The ingest side of the command line: serve, receiver, echo, send, config."""

import sys

# structlog loads rich where it finds it, for tracebacks that we do not show: 3 MiB of every process.
_rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # as `import` itself marks what is not there
import structlog  # noqa: E402, F401

if _rich is None:
    del sys.modules["rich"]
