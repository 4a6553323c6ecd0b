"""The client side of Winnow: wire types and the terminal chat. Imports no torch, vllm or fastapi."""
