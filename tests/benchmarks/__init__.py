"""Speed and memory, measured on demand: `make bench`, or `python -m tests.benchmarks NAME`. No test depends on them."""
