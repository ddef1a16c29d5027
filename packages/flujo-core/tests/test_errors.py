"""Errors: one root, messages that name the object and the next act, facts that survive a process boundary."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from flujo.core import (
    ConfigurationError,
    FlujoError,
    GuardDenied,
    InputError,
    LoopRunning,
    PipelineError,
    RunAborted,
    RunExists,
    StepFailed,
    StepTimeout,
    UsageLimitExceeded,
    errors,
)

SAMPLES: tuple[FlujoError, ...] = (
    FlujoError("step 'ask' stopped", "no key", "Set one"),
    PipelineError("pipeline 'p' cannot work", ["a circle", "no steps"]),
    ConfigurationError("limit=-1 cannot be used", "it is negative"),
    LoopRunning("Flujo.run", "await flujo.run_async(...)"),
    RunExists("r1"),
    StepFailed("ask", "ValueError", "bad"),
    StepTimeout("ask", 1.5, abandoned=True),
    UsageLimitExceeded("total_cost_usd_limit", "0.50", "0.60 needed"),
    GuardDenied("audit", "guard_step", "no"),
    RunAborted("enough", "cancel()"),
)


def test_a_message_says_what_why_and_what_to_do() -> None:
    assert str(SAMPLES[0]) == "step 'ask' stopped: no key. Set one"
    assert str(FlujoError("step 'ask' stopped")) == "step 'ask' stopped"


def test_one_problem_stands_in_the_line_and_several_in_a_list() -> None:
    assert str(PipelineError("p", ["no steps"])) == "p: no steps"
    assert str(PipelineError("p", ["one", "two"])) == "p: \n  - one\n  - two"
    assert PipelineError("p", iter(["one", "two"])).problems == ("one", "two")  # type: ignore[arg-type]


def test_every_public_error_has_the_one_root_and_stands_in_the_tree() -> None:
    for name, cls in vars(errors).items():
        if not inspect.isclass(cls) or cls.__module__ != errors.__name__:
            continue
        assert issubclass(cls, FlujoError)
        assert f"{name} " in (errors.__doc__ or "")
        assert inspect.getdoc(cls)


@pytest.mark.parametrize("cls", [PipelineError, ConfigurationError, InputError])
def test_a_value_that_cannot_be_used_is_a_value_error_too(cls: type[Exception]) -> None:
    assert issubclass(cls, ValueError)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_keeps_its_facts_over_a_process_boundary(error: FlujoError, again) -> None:
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_a_timeout_says_whether_its_thread_still_runs() -> None:
    assert "abandoned" in str(StepTimeout("ask", 2, abandoned=True))
    assert "abandoned" not in str(StepTimeout("ask", 2))
    assert "no result after 2 s" in str(StepTimeout("ask", 2))
