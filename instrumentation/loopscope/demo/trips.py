"""Scene: a planner that hands work to two sub-agents, which run at the same time."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import anthropic

import loopscope
from loopscope.demo import kit
from loopscope.stub import Ask, Script, ToolCall, Turn, call, say

PLANNER: Final = "trip-planner"
FLIGHTS: Final = "flight-finder"
HOTELS: Final = "hotel-finder"
PLANNER_MODEL: Final = "claude-opus-5-5"
FINDER_MODEL: Final = "claude-haiku-5-5"
CITIES: Final = ("Lisbon", "Oslo")


@loopscope.tool
async def flight_prices(city: str) -> dict[str, Any]:
    """Prices of flights to a city."""
    return {
        "city": city,
        "offers": [{"airline": "Nordwind", "eur": 140 + len(city) * 9}, {"airline": "Iberol", "eur": 171}],
    }


@loopscope.tool
async def hotel_prices(city: str) -> dict[str, Any]:
    """Prices of hotels in a city."""
    return {"city": city, "offers": [{"hotel": "Central", "eur_a_night": 96}, {"hotel": "Marina", "eur_a_night": 133}]}


async def _find(api: anthropic.AsyncAnthropic, agent: str, city: str, tool: Any) -> str:
    messages: list[Any] = [{"role": "user", "content": f"Find the best offer for {city}."}]
    while True:
        answer = await api.messages.create(
            model=FINDER_MODEL,
            max_tokens=500,
            tools=[kit.definition(tool)],
            messages=messages,
            extra_headers=kit.route(agent, city),
        )
        messages.append({"role": "assistant", "content": kit.content_of(answer)})
        if answer.stop_reason != "tool_use":
            return kit.text_of(answer)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": str(await tool(**block.input))}
            for block in answer.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


@loopscope.agent(name=FLIGHTS, version="1.2.0")
async def find_flights(api: anthropic.AsyncAnthropic, city: str) -> str:
    """Sub-agent: the best flight to a city."""
    return await _find(api, FLIGHTS, city, flight_prices)


@loopscope.agent(name=HOTELS, version="1.1.4")
async def find_hotels(api: anthropic.AsyncAnthropic, city: str) -> str:
    """Sub-agent: the best hotel in a city."""
    return await _find(api, HOTELS, city, hotel_prices)


@loopscope.tool
async def ask_flights(city: str) -> str:
    """Ask the flight agent."""
    async with anthropic.AsyncAnthropic() as api:
        return await find_flights(api, city)


@loopscope.tool
async def ask_hotels(city: str) -> str:
    """Ask the hotel agent."""
    async with anthropic.AsyncAnthropic() as api:
        return await find_hotels(api, city)


def _planner(ask: Ask) -> Turn:
    if ask.step == 0:
        tools = tuple(ToolCall(name, {"city": ask.session}) for name in ("ask_flights", "ask_hotels"))
        return Turn(text="I ask for flights and hotels at the same time.", tool_calls=tools)
    return say(
        f"Three days in {ask.session}: fly with Nordwind, stay at the Central. " + " ".join(ask.tool_results)[:200]
    )


def _finder(tool: str, best: str) -> Script:
    def turn(ask: Ask) -> Turn:
        return call(tool, city=ask.session) if ask.step == 0 else say(f"Best for {ask.session}: {best}.")

    return turn


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {
        PLANNER: _planner,
        FLIGHTS: _finder("flight_prices", "Nordwind"),
        HOTELS: _finder("hotel_prices", "Central"),
    }


async def _plan(api: anthropic.AsyncAnthropic, city: str) -> str:
    definitions = [kit.definition(ask_flights), kit.definition(ask_hotels)]
    messages: list[Any] = [{"role": "user", "content": f"Plan three days in {city}."}]
    route = kit.route(PLANNER, city)
    first = await api.messages.create(
        model=PLANNER_MODEL, max_tokens=800, tools=definitions, messages=messages, extra_headers=route
    )
    messages.append({"role": "assistant", "content": kit.content_of(first)})
    found = await asyncio.gather(ask_flights(city), ask_hotels(city))
    calls = [block for block in first.content if block.type == "tool_use"]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": text}
        for block, text in zip(calls, found, strict=True)
    ]
    messages.append({"role": "user", "content": results})
    last = await api.messages.create(
        model=PLANNER_MODEL, max_tokens=800, tools=definitions, messages=messages, extra_headers=route
    )
    return kit.text_of(last)


async def _all() -> None:
    async with anthropic.AsyncAnthropic() as api:
        for number, city in enumerate(CITIES, 1):
            async with loopscope.run(PLANNER, input={"city": city}, user_id=f"traveller-{number}") as run:
                run.final_answer = await _plan(api, city)


def main() -> None:
    """The agent's side."""
    loopscope.configure(agent=PLANNER, agent_version="0.2.0", environment="staging")
    asyncio.run(_all())
