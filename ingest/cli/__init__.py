"""The ingest side of the command line: serve, receiver, echo, send, config."""
