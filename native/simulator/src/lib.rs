//! Deterministic simulator of Authz. All of it is the test `tests/simulator`: no other crate links it.
