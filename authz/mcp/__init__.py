"""A guard between one MCP client and one MCP server: `authz mcp`.

The client speaks to the guard over standard input and output. The server is a command of its own, or an endpoint over HTTP.
A message passes, in this order:

    messages                       a line of bytes is one JSON-RPC message, or is refused
    questions                      the operation and the arguments that a message asks for
    guard                          asks Authz, remembers what waits for an answer, filters lists, reports results
    held                           keeps calls open that wait for a person
    stdio | http                   the server: a command, or an endpoint
    proxy                          carries messages between both ends until one of them ends

INVARIANT (judged = received): the bytes that were judged are the bytes that the other end gets. A message is read strictly, and is
never written anew; only a filtered list of tools, and a call that comes back with a state of this guard, are put together from their
own parts.
"""
