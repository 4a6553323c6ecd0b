"""The look of all reports: `plots` (matplotlib), `pages` (jinja2), `numbers` and the style sheet `page.css`."""
