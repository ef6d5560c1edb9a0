"""The soak: clients do everything, a nemesis breaks everything, a checker forgives nothing.

``python -m tests.soak --help``; what is checked stands in ``docs/reliability.md`` ("How it was tested").
"""
