"""The stages an instance passes, each a function: the instance in; facts about it, or `Rejected`, out."""
