"""An async agent that streams its answer, in a run with a user, a task and an outcome of its own.

ANTHROPIC_BASE_URL=http://127.0.0.1:8089 ANTHROPIC_API_KEY=any python examples/streaming_report.py "heat pumps"
"""

import asyncio
import sys

import anthropic

import loopscope

loopscope.configure(agent="report-example", agent_version="0.2.0", environment="development")


async def write_report(topic: str) -> str:
    question = f"Write a short report on {topic}."
    async with (
        anthropic.AsyncAnthropic() as client,
        loopscope.run(input=question, task_id=f"report-{topic}", user_id="reader-1") as run,
    ):
        async with client.messages.stream(
            model="claude-sonnet-4-6", max_tokens=2_000, messages=[{"role": "user", "content": question}]
        ) as stream:
            async for text in stream.text_stream:
                print(text, end="", flush=True)
            message = await stream.get_final_message()
        print()
        run.final_answer = message.content[0].text
        if message.stop_reason == "max_tokens":
            run.outcome("partial")
        return run.id


if __name__ == "__main__":
    run_id = asyncio.run(write_report(" ".join(sys.argv[1:]) or "heat pumps"))
    print(f"recorded as run {run_id}")
