"""The request pipeline: checked request → admission → K candidates → scores → selection. Knows neither HTTP nor
files.
"""
