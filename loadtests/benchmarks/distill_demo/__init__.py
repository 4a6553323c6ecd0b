"""`make distill-demo`: `winnow distill` end to end, and what it is good for, measured on the demo world."""
