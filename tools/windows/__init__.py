"""What happens in a window: the runs behind docs/windows.md, their records, figures and numbers.

`python -m tools.windows` trains, in about twenty minutes of one CPU core, stores records in docs/windows and draws the
figures; `--draw` draws them from the records stored. docs/windows.md takes its numbers from the records, see
`tools.results`.
"""
