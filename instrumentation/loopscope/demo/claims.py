"""Scene: insurance claims judged from photographs, with thinking and a prompt cached for an hour."""

import base64
from collections.abc import Mapping
from typing import Any, Final

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose, picture_png
from loopscope.stub import Ask, Script, ToolCall, Turn

AGENT: Final = "claims-inspector"
MODEL: Final = "claude-opus-5-5"
CLAIMS: Final = ("CL-4410", "CL-4411", "CL-4412")

GUIDE: Final = (
    "You inspect photographs of damaged household appliances for an insurer. Say what you see, how sure you are, and "
    "whether the damage fits the customer's story. Ask for the repair catalogue before you name a price.\n\n"
    + Prose("claims guide").text(5_200)
)


@loopscope.tool
def repair_price(part: str) -> list[dict[str, Any]]:
    """Look a part up in the repair catalogue; gives a text and a picture of the part."""
    picture = base64.b64encode(picture_png(64, 48, len(part))).decode()
    return [
        {"type": "text", "text": f"{part}: EUR {40 + 7 * len(part)}.00, in stock"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}},
    ]


def _turn(ask: Ask) -> Turn:
    if ask.step == 0:
        return Turn(
            thinking="The dent is on the left side and the paint is scratched downwards. That fits a fall from a "
            "table. The hinge looks bent. I need the price of the hinge.",
            text="I see a dent and a bent hinge. Let me look up the part.",
            tool_calls=(ToolCall("repair_price", {"part": f"hinge {ask.session}"}),),
        )
    return Turn(
        thinking="The catalogue price is below the limit, so a repair is cheaper than a replacement.",
        text=f"Claim {ask.session}: plausible. A new hinge is cheaper than a replacement. Confidence 0.8.",
    )


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def _inspect(claim: str, number: int) -> str:
    api = kit.client(AGENT, claim)
    photo = base64.b64encode(picture_png(320, 240, number)).decode()
    messages: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": photo}},
                {"type": "text", "text": f"Claim {claim}: the microwave fell off a table. Is that plausible?"},
            ],
        }
    ]
    request: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 4_000,
        "thinking": {"type": "enabled", "budget_tokens": 2_000},
        "system": [{"type": "text", "text": GUIDE, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [kit.definition(repair_price)],
    }
    while True:
        answer = api.messages.create(messages=messages, **request)
        messages.append({"role": "assistant", "content": kit.content_of(answer)})
        if answer.stop_reason != "tool_use":
            return kit.text_of(answer)
        results: list[Any] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": repair_price(**block.input)}
            for block in answer.content
            if block.type == "tool_use"
        ]
        results[-1]["cache_control"] = {"type": "ephemeral"}
        messages.append({"role": "user", "content": results})


def main() -> None:
    """The agent's side."""
    loopscope.configure(agent=AGENT, agent_version="0.5.0", environment="production")
    for number, claim in enumerate(CLAIMS, 1):
        with loopscope.run(AGENT, input={"claim": claim}, task_id=claim, user_id=f"insured-{number}") as run:
            run.final_answer = _inspect(claim, number)
