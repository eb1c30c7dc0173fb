"""Objects under their keys, written once; the lanes for conflicts and quarantine.

``layout``           UID -> shard -> key; the only place that builds keys
``part10``           a data set as a PS3.10 file: preamble, file meta, data set
``manifest``         what we know of an object, inside its file meta
``object_store``     what a store can do; ``directory_store`` does it with a folder
``shard_map``        which store has which shard, durable and versioned
``stores``           the configured stores as one, opened by the shard map
``lanes``            conflict lane and quarantine: entries, and references for repeats
``moves``            what administrators have moved since a worker counted it
"""
