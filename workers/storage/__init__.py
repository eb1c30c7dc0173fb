"""Objects under their keys, written once; the lanes for conflicts and quarantine.

``layout``           UID -> shard -> key; the only place that builds keys
``part10``           a data set as a PS3.10 file: preamble, file meta, data set
``manifest``         what we know of an object, inside its file meta
``object_store``     what a store can do; ``directory_store`` does it with a folder, ``bucket_store`` with a bucket
``folders``          folders made durably; ``unnamed_file``, whole before it has a name; ``durable_files``, which need no
                     sync again; ``folder_reader``, many in order
``bucket``           requests to a bucket, each outcome known; the only file that asks obstore, whose clients
                     ``bucket_client`` makes
``removals``         one at a time of a name that is given anew
``pieces``           of an object on their way there
``back_pressure``    what one slow or silent bucket may cost
``lease``            locks and presence in buckets, which run out
``probe``            whether a bucket keeps its word
``checksums``        the SHA-256 that an S3 store checked itself
``in_flight``        requests that hang, and how a process ends all the same
``root``             the place of a store: its records, and who is at work in it; ``directory_root``, ``bucket_root``
``roots``            those of the settings
``absent``           stores that did not answer at the start, until they do
``shard_map``        which store has which shard, durable and versioned
``stores``           the configured stores as one, opened by the shard map
``damage``           objects read back: sound, or set aside
``lanes``            conflict lane and quarantine: entries, and references for repeats; ``entries``, as administrators see them
``unresolved``       what of a UID waits there for a decision
``quarantine``, ``resolution``  what administrators decide; ``rebalance``, which shards they move
``moves``            what administrators have moved since a worker counted it
"""
