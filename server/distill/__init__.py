"""The offline door: a file of prompts in, the winners as training data out, through the same pipeline as HTTP."""
