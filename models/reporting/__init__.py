"""The look that all reports share: plots, the page style sheet, number formatting."""
