"""`make distill-demo`: `winnow distill` end to end, and the benefit of training on its output,
measured on the demo world.
"""
