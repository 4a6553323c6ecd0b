"""The `winnow` command, one module a command group."""
