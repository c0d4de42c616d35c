"""What a CUDA machine does with lus, in one command: `python -m tests.benchmarks.gpu`."""
