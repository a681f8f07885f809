"""What texts state about docs/results, written from the stored records and checked against them.

`python -m tools.results` writes; `--check` only says what is not so. Texts are marked by comments, which no rendered
page shows:

- `<!-- of: FOLDER -->`: from here on, quantities are those of docs/results/FOLDER where they name no other.
- `3.6<!-- = EXPRESSION -->`: a number, an interval such as `[0.6, 1.4]` or both, with or without a unit, is what the
  records say, rounded as it stands.
- `<!-- holds: EXPRESSION -->`: what the words before it say is true of the records.
- `<!-- write: EXPRESSION -->` … `<!-- end -->`: all between is written from the records, such as a table or a verdict.
- `<!-- measured: COMMAND -->` … `<!-- end -->`: numbers between come from a command that stores no records.
- `<!-- setting -->`: numbers of the clause before it are settings, not results.

In Python files a comment `# holds: EXPRESSION` stands beside the docstring that it is about. An expression is Python
over the public methods of `Words` in tables.py and quantities.py. On the pages of `STRICT`, in pages.py, every number
is marked in one of these ways.
"""
