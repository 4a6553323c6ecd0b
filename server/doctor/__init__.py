"""`winnow doctor`: what this machine is, whether the engines run on it, and how they compare with plan and roofline.

Facts are read, nothing is changed (`facts`). Trials start the engines on dummy weights, each in a process of its own
with a time limit (`runner`, `trials`, `engine_trials`), while this process watches the memory (`memory_watch`). Both
become findings: sentences with a severity and what to do (`facts_findings`, `trial_findings`). `report` writes them
as JSON, page and summary. Nothing is sent anywhere, and `privacy` keeps names of users, hosts and folders out.
"""
