"""An agent of the OpenAI Agents SDK whose mails wait for a person.

pip install 'authz-client[openai-agents]'
"""

from typing import Any

from agents import Agent, Runner, RunState, function_tool

from authz_client import Authz
from authz_client.integrations.openai_agents import GuardedTools


async def run_agent(model: Any, authz: Authz, prompt: str) -> str:
    """Run an agent to its end, and wait for people meanwhile.

    Args:
        model: Model, or its name.
        authz: Client of the agent.
        prompt: The user's words.

    Returns:
        The agent's last words.
    """

    @function_tool
    def send(to: str, body: str) -> str:
        """Send a mail."""
        print(f"sent to {to}: {body}")
        return f"sent to {to}"

    guarded = GuardedTools(authz)
    agent = Agent(name="mail", model=model, tools=[guarded.tool(send, "mail.send")])
    result = await Runner.run(agent, prompt)
    while result.interruptions:
        for item in result.interruptions:
            if held := guarded.held(item):
                print(f"A person must allow this: {held['url']} (code {held['code']})")
        # The text of the state can be stored, and another process can go on.
        text = result.to_state().to_string()
        state = await RunState.from_string(agent, text)
        await guarded.answer(state)
        result = await Runner.run(agent, state)
    return str(result.final_output)
