"""The engine of Flujo."""

from .context import RunContext, RunInfo, Update
from .errors import *  # noqa: F403
from .hookimpl import hookimpl
from .messages import *  # noqa: F403
from .outcome import Aborted, Failure, Outcome, Success
from .payloads import *  # noqa: F403
from .protocols import *  # noqa: F403
from .result import PipelineResult, StepRecord
from .retry import RetryPolicy
from .scrub import scrub
from .usage import Price, Usage, UsageLimits
