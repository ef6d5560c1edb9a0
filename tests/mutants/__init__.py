"""Wrong rules on purpose: each must be caught by the test that is named for it.

Run ``python -m tests.mutants``; see :mod:`tests.mutants.__main__`.
"""
