"""The look of all reports: `plots` (matplotlib), `pages` (jinja2) with `page.css`, `numbers`, `tables` (terminal)."""
