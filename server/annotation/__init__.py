"""Preference collection as in Llama 2 (section 3.2.1): pairs of recorded answers that people choose between, blind.

`policies` choose pairs and `making` makes batches of them; `work` is what annotators do; `agreement` and `accuracy`
tell how far people agree with each other, and reward models with people. No HTTP; the SQL is in `winnow.server.store`.
"""
