"""What `authz analyze` knows of a report: the analyzer writes it, these modules read, filter and render it.

A report passes them in this order: `report` reads the analyzer's JSON, `suppressions` and `baseline` say which findings still
count, `selection` puts the findings in order with their states, and `sarif`, `markdown` and `picture` render them. `texts` makes strings of a
bundle safe to show; it is below all others.
"""
