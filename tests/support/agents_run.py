"""Runs an agent with a scripted model: `python agents_run.py MODE AUTHZ PLAN`.

Run by an interpreter that has the frameworks. A plan is `[[to, body], …]`, the mails that the model sends at once; its last words repeat
the results of its tools. The last line of the output is `{"answer": …}`. A mode is one of these:

    langgraph, openai       the example of the framework
    langgraph-early         coroutines; the graph is resumed before the answer, and then by another agent on the same thread
    openai-early            the application approves the interruption before the answer
    openai-stored           the state goes on with another agent, which knows nothing of the first
"""

import asyncio
import json
import os
import sys
from functools import partial
from importlib import import_module
from typing import Any

from authz_client import Authz, TokenFile


def _chat_model(mails: list[list[str]]) -> Any:
    from langchain_core.language_models import BaseChatModel  # noqa: PLC0415 - one framework at a time
    from langchain_core.messages import AIMessage, ToolMessage  # noqa: PLC0415
    from langchain_core.outputs import ChatGeneration, ChatResult  # noqa: PLC0415

    class Scripted(BaseChatModel):  # type: ignore[misc]
        @property
        def _llm_type(self) -> str:
            return "scripted"

        def bind_tools(self, _tools: Any, **_: Any) -> Any:
            return self

        def _generate(self, messages: Any, *_: Any, **__: Any) -> Any:
            results = [one.content for one in messages if isinstance(one, ToolMessage)]
            calls = [
                {"name": "send", "args": {"to": to, "body": body}, "id": f"c{number}"}
                for number, (to, body) in enumerate(mails)
            ]
            answer = (
                AIMessage(content=" | ".join(results))
                if results
                else AIMessage(content="", tool_calls=calls)
            )
            return ChatResult(generations=[ChatGeneration(message=answer)])

    return Scripted()


def _langgraph(authz: Authz, mails: list[list[str]]) -> str:
    example: Any = import_module("langgraph_mail")
    return str(example.run_agent(_chat_model(mails), authz, "Send my mails."))


def _langgraph_early(authz: Authz, mails: list[list[str]]) -> str:
    from langchain.agents import create_agent  # noqa: PLC0415
    from langchain.agents.middleware import wrap_tool_call  # noqa: PLC0415
    from langchain.tools import tool  # noqa: PLC0415
    from langgraph.checkpoint.memory import InMemorySaver  # noqa: PLC0415
    from langgraph.types import Command  # noqa: PLC0415

    from authz_client.integrations.langgraph import ahold_tool_call, await_answer  # noqa: PLC0415

    saver = InMemorySaver()

    def agent() -> Any:
        @tool  # type: ignore[untyped-decorator]
        @authz.guard("mail.send")
        async def send(to: str, body: str) -> str:
            """Send a mail."""
            _say(f"sent to {to}: {body}")
            return f"sent to {to}"

        hold = wrap_tool_call(ahold_tool_call)
        return create_agent(_chat_model(mails), [send], middleware=[hold], checkpointer=saver)

    async def run() -> str:
        config: Any = {"configurable": {"thread_id": "1"}}
        await agent().ainvoke({"messages": [("user", "Send my mails.")]}, config)
        early = await agent().ainvoke(Command(resume=True), config)
        (held,) = early["__interrupt__"]
        _say(f"still held: {held.value['url']}")
        await await_answer(authz, json.loads(json.dumps(held.value)))
        done = await agent().ainvoke(Command(resume=True), config)
        return str(done["messages"][-1].content)

    return asyncio.run(run())


def _scripted(mails: list[list[str]]) -> Any:
    from agents import set_tracing_disabled  # noqa: PLC0415
    from agents.testing import (  # noqa: PLC0415
        ModelStep,
        ScriptedModel,
        assistant_message,
        function_call,
    )

    set_tracing_disabled(True)
    calls = [
        function_call("send", {"to": to, "body": body}, call_id=f"c{number}")
        for number, (to, body) in enumerate(mails)
    ]

    def last(call: Any) -> Any:
        results = [
            str(item["output"])
            for item in call.input
            if isinstance(item, dict) and item.get("type") == "function_call_output"
        ]
        return [assistant_message(" | ".join(results))]

    return ScriptedModel([calls, ModelStep.respond(last)])


def _openai(authz: Authz, mails: list[list[str]]) -> str:
    example: Any = import_module("openai_mail")
    return str(asyncio.run(example.run_agent(_scripted(mails), authz, "Send my mails.")))


def _openai_other(authz: Authz, mails: list[list[str]], *, waits: bool) -> str:
    from agents import Agent, Runner, RunState, function_tool  # noqa: PLC0415

    from authz_client.integrations.openai_agents import GuardedTools  # noqa: PLC0415

    model = _scripted(mails)

    @function_tool  # type: ignore[untyped-decorator]
    def send(to: str, body: str) -> str:
        """Send a mail."""
        _say(f"sent to {to}: {body}")
        return f"sent to {to}"

    async def run() -> str:
        first, second = GuardedTools(authz), GuardedTools(authz)
        agent = Agent(name="mail", model=model, tools=[first.tool(send, "mail.send")])
        result = await Runner.run(agent, "Send my mails.")
        if waits:
            agent = Agent(name="mail", model=model, tools=[second.tool(send, "mail.send")])
            state = await RunState.from_string(agent, result.to_state().to_string())
            _say(f"answered: {await second.answer(state)}")
        else:
            state = result.to_state()
            for item in result.interruptions:
                state.approve(item)
        return str((await Runner.run(agent, state)).final_output)

    return asyncio.run(run())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


RUNS: dict[str, Any] = {
    "langgraph": _langgraph,
    "langgraph-early": _langgraph_early,
    "openai": _openai,
    "openai-early": partial(_openai_other, waits=False),
    "openai-stored": partial(_openai_other, waits=True),
}


def main() -> None:
    """Run the agent."""
    mode, address, plan = sys.argv[1:]
    token = os.environ.get("AGENT_TOKEN")
    source = TokenFile(token) if token else lambda: "a.b.c"
    authz = Authz(address, credentials=source, timeout=10, approval_poll=60 if token else 1)
    _say(json.dumps({"answer": RUNS[mode](authz, json.loads(plan))}))


if __name__ == "__main__":
    main()
