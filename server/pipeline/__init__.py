"""The request pipeline: checked request → admission → K candidates → scores → selection. Knows no HTTP, no files."""
