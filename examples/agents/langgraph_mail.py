"""A LangChain agent whose mails wait for a person.

pip install 'authz-client[langgraph]' langchain
"""

from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from authz_client import Authz
from authz_client.integrations.langgraph import hold_tool_call, wait_for_answer


def run_agent(model: Any, authz: Authz, prompt: str) -> str:
    """Run an agent to its end, and wait for people meanwhile.

    Args:
        model: Chat model.
        authz: Client of the agent.
        prompt: The user's words.

    Returns:
        The agent's last words.
    """

    # `@guard` below `@tool`: the function asks before it runs.
    @tool
    @authz.guard("mail.send")
    def send(to: str, body: str) -> str:
        """Send a mail."""
        print(f"sent to {to}: {body}")
        return f"sent to {to}"

    agent = create_agent(
        model,
        [send],
        middleware=[wrap_tool_call(hold_tool_call)],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "mail-1"}}
    result = agent.invoke({"messages": [("user", prompt)]}, config)
    while held := result.get("__interrupt__"):
        for one in held:
            print(f"A person must allow this: {one.value['url']} (code {one.value['code']})")
            wait_for_answer(authz, one.value)
        result = agent.invoke(Command(resume={one.id: True for one in held}), config)
    return str(result["messages"][-1].content)
