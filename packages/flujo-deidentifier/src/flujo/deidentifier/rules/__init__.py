"""The detectors that need no model: each module has `find(view)`, which yields findings in the plain text.

Every pattern here must stay linear in the length of the text whatever the text is; the repeats are bounded
for that reason, and `tests/test_hostile_text.py` measures it.
"""
