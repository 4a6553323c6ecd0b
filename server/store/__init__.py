"""The store of served answers: SQLite in a file, or PostgreSQL by URL; without one nothing is recorded.

`recorder` writes from a thread of its own, so that no answer waits for the store or fails with it. A row's content is
a journal's `Record`. `schema` has every statement of SQL but the migrations, which are numbered files.
"""
