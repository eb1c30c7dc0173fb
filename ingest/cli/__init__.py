"""The ingest side of the command line; a command is a file of its name, found by ``group``, loaded when it is run.

``serve``        everything on one machine, kept running by ``supervisor`` as ``restart_policy`` decides
``receiver``     one process of it
``echo``, ``send``  to a peer, with ``peer_options`` and ``commit_options``
``sources``      who may send, and whether reports reach them
``commitments``  transactions, read through ``commitment_view`` or ``commitment_topic_view``
``config``       the settings; ``topics``, what Kafka has of them; ``plan``, what a site needs, by ``capacity``
``conformance``  ``conformance_statement``, with ``conformance_storage``, ``conformance_commitment``, ``conformance_network``
                 and ``conformance_statuses``
"""

import sys

# structlog loads rich where it finds it, for tracebacks that we do not show: 3 MiB of every process.
_rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # as `import` itself marks what is not there
import structlog  # noqa: E402, F401 - loaded here, for the line above

if _rich is None:
    del sys.modules["rich"]
