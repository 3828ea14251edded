"""What keys, arrays, functions and modules are made of, in words that JSON holds."""

import dataclasses
import functools
import hashlib
import inspect
import types
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import PRNGKeyArray


def digest(values: Any) -> str:
    """Shape and SHA-256 of an array's bytes."""
    host = np.ascontiguousarray(values)
    return f"{host.shape} sha256:{hashlib.sha256(host.tobytes()).hexdigest()}"


def key_words(key: PRNGKeyArray) -> list[Any]:
    """The integers that a key is made of, after its generator if that is no default."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = jrandom.key_data(key) if typed else key
    kind = [str(jrandom.key_impl(key))] if typed else []
    usual = [] if kind == ["threefry2x32"] or not typed else kind
    return [*usual, *(int(word) for word in np.asarray(data).ravel())]


def identity(tree: Any, within: tuple = ()) -> Any:
    """What a function, module or pytree is made of.

    Names of types and functions, digests of arrays, text and numbers, static fields,
    what partial functions hold and closures close over. Not: code, and the insides of
    objects that are none of these, which count by the name of their type.

    Args:
        tree: any object.
        within: the functions being looked into, which may close over themselves.
    """
    look = functools.partial(identity, within=within)
    kind = f"{type(tree).__module__}.{type(tree).__qualname__}"
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree if tree == tree else "nan"
    if eqx.is_array(tree) and jnp.issubdtype(tree.dtype, jax.dtypes.prng_key):
        return ["key", *key_words(tree)]
    if eqx.is_array_like(tree):
        return f"{np.asarray(tree).dtype} {digest(tree)}"
    if isinstance(tree, Mapping):
        return [kind, {str(name): look(value) for name, value in tree.items()}]
    if isinstance(tree, list | tuple):
        return [kind, *map(look, tree)]
    if isinstance(tree, set | frozenset):  # in no order
        return [kind, *sorted(map(look, tree), key=str)]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in dataclasses.fields(tree)]
        return [kind, {name: look(getattr(tree, name, None)) for name in names}]
    if callable(tree):
        return _of_callable(tree, kind, within)
    leaves = jax.tree.leaves(tree)
    inside = [] if len(leaves) == 1 and leaves[0] is tree else leaves
    return [kind, *map(look, inside)]


def _of_callable(function: Any, kind: str, within: tuple) -> Any:
    """Of functions, bound and partial ones, what wraps them, and types."""
    look = functools.partial(identity, within=within)
    if isinstance(function, functools.partial):
        parts = function.func, function.args, function.keywords
        return ["partial", *map(look, parts)]
    if isinstance(function, types.MethodType):
        return ["method", look(function.__func__), look(function.__self__)]
    if isinstance(function, types.FunctionType):
        name = f"{function.__module__}.{function.__qualname__}"
        if function in within:
            return ["function", name]
        closed = dict(inspect.getclosurevars(function).nonlocals)
        held = [closed, function.__defaults__, function.__kwdefaults__]
        return ["function", name, identity(held, (*within, function))]
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:  # what jit and the like make of a function
        return ["wrapped", kind, look(wrapped)]
    name = getattr(function, "__qualname__", None)
    return kind if name is None else f"{function.__module__}.{name}"
