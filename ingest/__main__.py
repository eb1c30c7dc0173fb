"""`dicom-ingest`, also as `python -m ingest`: the command line that finds its subcommands by entry points."""

from ingest.cli.group import main

if __name__ == "__main__":
    main()
