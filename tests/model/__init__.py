"""An exhaustive, bounded search of the protocol: every interleaving of small worlds, with faults, judged at every step.

Read `protocol` (what the mutants change), `world` (what there is), `counters` and `ledger` (what the two servers do),
`worker` and `beat` (who calls them), `faults`, `invariants`, and `cases` and `mutants` (what is asked of the search).
"""
