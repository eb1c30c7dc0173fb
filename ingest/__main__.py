"""`dicom-ingest`, also as `python -m ingest`: the command line that finds its subcommands by entry points."""

import os
import signal

if os.getpid() == 1:
    # The first process of a container does not end by a signal that it has no handler for: told to stop while it starts, it would run
    # on until it is killed. Who has something to finish sets a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))

from ingest.cli.group import main

if __name__ == "__main__":
    main()
