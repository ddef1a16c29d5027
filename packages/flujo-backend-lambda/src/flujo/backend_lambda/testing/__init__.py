"""AWS Lambda on this machine, for tests: unmodified boto3 on one side, the real runtime client on the other.

Needs the extra `[testing]`. It is no security boundary: the functions run as you.
"""

from .environment import FunctionSpec, Result
from .local import LocalLambda
from .service import Function, Record

__all__ = ["Function", "FunctionSpec", "LocalLambda", "Record", "Result"]
