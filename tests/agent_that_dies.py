"""An agent that pays two bills, run in a process that may be killed: `agent_that_dies.py FOLDER EFFECT first|later`.

`first` is killed inside the second tool call, after its effect. `later` goes on with the run as a worker does, and
prints how it stands. The effects, and what the model was asked, stand in files that are synced to the disk.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from pydantic_ai import messages as pai
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import Tool

from flujo.agent import agent
from flujo.core import Flujo, Price, Step

FOLDER, EFFECT, PART = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


def note(name: str, line: str) -> None:
    """Add a line to a file, durably."""
    with (FOLDER / name).open("a") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def answer(messages: list[pai.ModelMessage], info: AgentInfo) -> pai.ModelResponse:
    """Let the bills be paid one after the other."""
    paid = sum(isinstance(part, pai.ToolReturnPart) for message in messages for part in message.parts)
    note("asked", str(paid))
    if paid == 2:
        return pai.ModelResponse(parts=[pai.TextPart("all is paid")])
    return pai.ModelResponse(parts=[pai.ToolCallPart("pay", {"bill": paid + 1}, f"call-{paid}")])


def pay(bill: int) -> str:
    """Pay a bill."""
    note("effects", f"pay {bill}")
    if PART == "first" and bill == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"


async def main() -> None:
    """Run it, or go on with it."""
    tool = Tool(pay, metadata={"effect": EFFECT})
    clerk = agent(FunctionModel(answer), tools=[tool], name="clerk", price=Price(request_usd="0.01"))
    flujo = Flujo(Step(clerk), store=f"sqlite:///{FOLDER / 'runs.db'}")
    if PART == "first":
        await flujo.run_async("pay the bills", run_id="r")
        return
    (result,) = await flujo.recover_async()
    facts = {"status": result.status, "requests": result.usage.requests, "cost": str(result.total_cost_usd)}
    sys.stdout.write(json.dumps({**facts, "questions": [pause.question for pause in result.pauses]}))


asyncio.run(main())
