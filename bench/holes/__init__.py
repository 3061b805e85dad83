"""How many holes `authz analyze` finds: small changes that open realistic bundles, as a well-meaning colleague would make them.

In the order of a run: `draft` holds a bundle that can be changed, `operators` the changes, `analyzer` runs the command and
reads its findings, `measure` compares the findings of a bundle and of its changed copies, `figures` writes the table.
"""
