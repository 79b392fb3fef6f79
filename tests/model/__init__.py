"""An exhaustive, bounded search of the protocol: all interleavings of small worlds, judged at every step.

Read `invariants`, `world` (what there is), `counters` and `ledger` (what the two servers do), `worker`, `beat`
and `sync` (who calls them), `faults`, `rest` (what is left when all is still), and then `protocol` (one switch for
each rule), `cases` and `mutants` (what is asked of the search).
"""
