"""What `authz analyze` and `authz diff` know: the analyzer writes a document, these modules read, filter and render it.

`leases` turns the leases of a configuration into a part of the request. `executable` finds the analyzer and runs it, and `solver` is the process that the analyzer starts for its questions.

A report passes the other modules in this order: `report` reads the analyzer's JSON, `suppressions` and `baseline` say which findings still
count, `selection` puts the findings in order with their states, and `sarif`, `markdown` and `picture` render them. `texts` makes strings of a
bundle safe to show; it is below all others.
"""
