"""What the tests of every surface share: keys, tokens, case files, servers, an Envoy and an upstream."""
