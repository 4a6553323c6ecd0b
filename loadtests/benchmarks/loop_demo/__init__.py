"""`make loop-demo`: recorded answers, people's choices and a better reward model, end to end on the demo world."""
