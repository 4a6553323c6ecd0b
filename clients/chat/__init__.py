"""`winnow chat`: a conversation in the terminal, or with lines from a pipe.

`conversation` sends messages and decides the exit status, `commands` tells messages from commands, `sources`, `editor`
and `keyboard` read them, `screen` prints. The last two readers need prompt_toolkit, and only a terminal needs them.
"""
