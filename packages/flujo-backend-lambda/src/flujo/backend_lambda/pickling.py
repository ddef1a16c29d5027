"""Code that no import path leads to, as a pickle: of a notebook, of `__main__`, of a closure. Opt-in on both sides."""

from __future__ import annotations

import base64
import pickletools
import sys

from flujo.core import CodeBlob

from .blobs import BlobStore, packed
from .envelope import Code
from .errors import NotShippable
from .holding import PROTOCOL, held_by
from .scan import Known, find_env_secret, scan
from .unpickling import PACKER
from .versions import PYTHON, cloudpickle_version

__all__ = ["pickled"]

Shipped = tuple[CodeBlob, Code, tuple[str, ...]]


def pickled(function: object, name: str, store: BlobStore | None, limit: int) -> Shipped:
    """A function as bytes, and what it asks of the worker: its versions, and the modules that it only names.

    Args:
        function: The step's function.
        name: The step, for messages.
        store: Where it goes where it is longer than `limit`.
        limit: Bytes that travel in the task itself.

    Raises:
        NotShippable: It must not, or cannot, leave this process.
    """
    version = cloudpickle_version()
    if version is None:
        why = "it has no import path, and cloudpickle is not installed"
        do = "pip install 'flujo-backend-lambda[pickle]', or define it in a module"
        raise NotShippable("E_PICKLE", f"step {name!r}", why, do)
    from .checked import checked_dumps  # needs what is optional, and heavy for who never needs it

    known = Known()
    try:
        scan(function, name, known)
        data = checked_dumps(function, name, known)
    except NotShippable:
        raise
    except Exception as error:  # pickling runs code of whatever is held: any error can come of it
        path, kind = _culprit(function, name)
        why = known.masked(f"{kind} cannot be pickled ({type(error).__name__}: {error})")
        do = "Make it in the step, or take it as a resource; or define the step in a module of the artifact"
        raise NotShippable("E_PICKLE", path, why, do) from error
    variable = find_env_secret(data, in_arrays=True)
    if variable is not None:
        why, do = f"the value of variable {variable} is somewhere in it", "Take it as a resource that the worker opens"
        raise NotShippable("E_SECRET", f"step {name!r}", why, do)
    text = base64.b64encode(data)
    blob = packed(text, store, spill=len(text) > limit)
    code = CodeBlob(
        packer=PACKER, python=PYTHON, sha256=blob.sha256, size=blob.size, data=blob.text or "", where=blob.key or ""
    )
    return code, Code(python=PYTHON, cloudpickle=version), _modules(data)


def _modules(data: bytes) -> tuple[str, ...]:
    """Modules outside the standard library that a pickle names: the worker must have them."""
    names: set[str] = set()
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if isinstance(argument, str):
            texts.append(argument)
        if opcode.name == "GLOBAL" and isinstance(argument, str):
            names.add(argument.split(" ")[0])
        elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
            names.add(texts[-2])
    # A text that was memoized is not there twice: a name that was missed is found when the worker imports it.
    known = (name for name in names if name in sys.modules)
    return tuple(sorted(name for name in known if name.split(".")[0] not in {*sys.stdlib_module_names, "cloudpickle"}))


def _culprit(function: object, name: str) -> tuple[str, str]:
    """Which part of a function cannot be pickled, and its class."""
    import cloudpickle  # optional, and heavy for who never needs it

    for place, _, value in held_by(function, is_root=True):
        try:
            cloudpickle.dumps(value, protocol=PROTOCOL)
        except Exception:  # as above: it is asked which one it is
            return f"function {name!r} > {place}", f"a {type(value).__module__}.{type(value).__qualname__}"
    return f"step {name!r}", "something that it holds"
