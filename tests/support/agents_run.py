"""Runs an example agent with a scripted model: `python agents_run.py langgraph|openai AUTHZ PLAN`.

Run by an interpreter that has the frameworks. A plan is `[[to, body], …]`, the mails that the model sends at once; its last words repeat
the results of its tools. The last line of the output is `{"answer": …}`.
"""

import asyncio
import json
import sys
from importlib import import_module
from typing import Any

from authz_client import Authz


def _langgraph(authz: Authz, mails: list[list[str]]) -> str:
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

    example: Any = import_module("langgraph_mail")
    return str(example.run_agent(Scripted(), authz, "Send my mails."))


def _openai(authz: Authz, mails: list[list[str]]) -> str:
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

    model = ScriptedModel([calls, ModelStep.respond(last)])
    example: Any = import_module("openai_mail")
    return str(asyncio.run(example.run_agent(model, authz, "Send my mails.")))


def main() -> None:
    """Run the agent."""
    framework, address, plan = sys.argv[1:]
    authz = Authz(address, credentials=lambda: "a.b.c", timeout=10, approval_poll=1)
    run = _langgraph if framework == "langgraph" else _openai
    sys.stdout.write(json.dumps({"answer": run(authz, json.loads(plan))}) + "\n")


if __name__ == "__main__":
    main()
