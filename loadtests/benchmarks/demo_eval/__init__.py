"""`make demo-eval`: the gain of best-of-N, measured on the demo world's held-out prompts.

`judged` samples and judges answers, `figures` makes figures of them, `pairs` measures the reward models, `questions`
asks what anybody would ask first, and `page` shows it all.
"""
