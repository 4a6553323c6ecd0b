"""`make distill-demo`: `winnow distill` end to end on the demo world, and the benefit of training on its output."""
