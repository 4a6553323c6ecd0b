"""The `winnow` command line, one module per command group; `main` registers the commands."""
