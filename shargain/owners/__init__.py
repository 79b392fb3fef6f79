"""Pages for owners of targets: their quotas and what became of their offers, to be read and not changed."""
