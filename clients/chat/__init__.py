"""`winnow chat`: a conversation in the terminal, or with lines from a pipe.

`conversation` sends messages and decides the exit status, `commands` tells messages from commands, `sources` and
`editor` (with `keyboard`) read them, `screen` prints. Only the editor needs prompt_toolkit, and only a terminal needs it.
"""
