"""Threads and event loops have the same methods: each call has a twin whose name begins with `a`."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

import authz_client

# Methods that both kinds of code call: they wait for nothing, or return a block or a function of either kind.
BLOCKS = {"__enter__": "__aenter__", "__exit__": "__aexit__"}


def public_classes() -> Iterator[type[Any]]:
    """Every public class of the client, also of modules that `authz_client` itself does not list."""
    seen: set[type[Any]] = set()
    for found in pkgutil.iter_modules(authz_client.__path__, "authz_client."):
        if found.name.split(".")[-1] in ("v1", "integrations"):
            continue
        module = importlib.import_module(found.name)
        for name in module.__all__:
            kind = getattr(module, name)
            if (
                inspect.isclass(kind)
                and kind.__module__.startswith("authz_client")
                and kind not in seen
            ):
                seen.add(kind)
                yield kind


def methods(kind: type[Any]) -> dict[str, FunctionType]:
    """The public methods of a class, and those of blocks, by name."""
    return {
        name: method
        for name, method in vars(kind).items()
        if isinstance(method, FunctionType)
        and (not name.startswith("_") or name in (*BLOCKS, *BLOCKS.values()))
    }


def pairs() -> Iterator[tuple[type[Any], str, str]]:
    """The calls of each class: the name of the method for threads, and of that for event loops."""
    for kind in public_classes():
        found = methods(kind)
        for name, method in found.items():
            if name in BLOCKS:
                yield kind, name, BLOCKS[name]
            elif name == "wait_async":
                continue
            elif inspect.iscoroutinefunction(method) and name not in BLOCKS.values():
                assert name.startswith("a"), f"{kind.__name__}.{name}"
                yield kind, name[1:], name
            elif "run" in method.__code__.co_names:
                # It runs a flow on this thread.
                yield kind, name, f"a{name}"
            elif name == "wait":
                # `await` is a keyword.
                yield kind, name, "wait_async"


PAIRS = sorted(set(pairs()), key=lambda pair: (pair[0].__name__, pair[1]))


def test_pairs_are_found() -> None:
    """The calls that everybody knows are among them."""
    named = {f"{kind.__name__}.{name}" for kind, name, _ in PAIRS}
    assert {
        "Authz.check",
        "Authz.list",
        "Authz.report",
        "Authz.close",
        "Tasks.start",
        "Task.extend",
    } <= named
    assert {"TaskCredentials.issue", "TokenFile.token", "TaskBlock.__enter__"} <= named
    assert len(PAIRS) >= 20


@pytest.mark.parametrize(("kind", "name", "twin"), PAIRS)
def test_each_call_has_a_twin(kind: type[Any], name: str, twin: str) -> None:
    """With the same parameters and defaults, and the same result."""
    found = methods(kind)
    assert name in found, f"{kind.__name__} has {twin}, and no {name}"
    assert twin in found, f"{kind.__name__} has {name}, and no {twin}"
    assert inspect.iscoroutinefunction(found[twin])
    assert not inspect.iscoroutinefunction(found[name])
    assert inspect.signature(found[name]) == inspect.signature(found[twin])
    assert found[twin].__doc__ or name in BLOCKS


def test_records_have_no_calls() -> None:
    """A permit, a credential and a caller are values: nothing of them depends on the kind of code."""
    for kind in (authz_client.Permit, authz_client.TaskCredential, authz_client.Caller):
        assert dataclasses.is_dataclass(kind)
        assert not [pair for pair in PAIRS if pair[0] is kind]


@pytest.mark.parametrize("name", ["httpx", "httpx2", "grpc"])
def test_integrations_serve_both_kinds(name: str) -> None:
    """Each function for one kind of client has a twin for the other."""
    module = importlib.import_module(f"authz_client.integrations.{name}")
    made = [each for each in module.__all__ if inspect.isfunction(getattr(module, each))]
    twins = {each: each.replace("async_", "").replace("aio_", "") for each in made}
    asynchronous = {each for each, twin in twins.items() if each != twin}
    assert asynchronous
    for each in asynchronous:
        ours, other = (
            inspect.signature(getattr(module, one)).parameters for one in (each, twins[each])
        )
        assert list(ours.values()) == list(other.values())
    # One handler of `credential_auth` serves both clients of its library.
    assert set(made) - asynchronous - {twins[each] for each in asynchronous} <= {"credential_auth"}
