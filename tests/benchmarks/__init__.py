"""Speed and memory, measured: `make bench`, or `python -m tests.benchmarks PART` for a part of it.

A part is a module with `measure(folder) -> Measured`; `__main__.PARTS` names them. What is compared
is measured in turns, in the same run and on the same files, and the median of the rounds is given
with the least and the greatest: a figure of one run alone says as much about the machine's other
work as about lus.
"""
