"""What lus is put through beside its tests: hostile files, faults, load.

Each module is a program, `python -m tests.stress.<name>`; a short, seeded part of it runs in
`make test`.
"""
