"""The workers' side of the command line: worker, status, and what an administrator does with stores and lanes."""
