"""Which run an LLM call belongs to: a declared one, one found from its history, or none. Host's thread.

Also what the run learns from the call: its turn, its usage for limits, the tool results that its request brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from loopscope._internal import guard, runtime, scope
from loopscope._internal.costs import cost_attributes, is_priced
from loopscope._internal.inferred import InferredRun
from loopscope._internal.recording import Recording, SpanIds, host_span
from loopscope._internal.runs import Run, owner_attributes
from loopscope._internal.tools import recording_run_id
from loopscope._internal.tooluse import results_in
from loopscope_schemas import attributes as at

from .operations import CHAT

if TYPE_CHECKING:
    from loopscope._internal.ledger import Spending
    from loopscope._internal.limits import Hit
    from loopscope._internal.runtime import Runtime

    from .answers import Answer


SHORT_ANSWER_BYTES = 8_000
"""What the host's thread can read in some microseconds."""


class Place:
    """Where a call stands: its run, its parent span, and what goes on in the run meanwhile."""

    def __init__(self, outer: scope.Scope | None, run: Run | None, messages: Sequence[Any], *, is_turn: bool) -> None:
        self.run = run
        self._is_turn = is_turn
        self._outer = outer
        self._messages = messages
        self._inferred = run if outer is None and isinstance(run, InferredRun) else None
        self._turn = 1
        inside = outer if outer is not None else run.scope if run is not None else None
        self._inside = inside
        self.parent: SpanIds | None = inside.span if inside is not None else host_span()

    @classmethod
    def of(cls, active: Runtime, options: Any, operation: str, outer: scope.Scope | None) -> Place:
        """The place of a request of the SDK made in `outer`. What is no LLM call has no turn, no limit, and makes no
        run."""
        if operation != CHAT:
            return cls(outer, outer.run if outer is not None else None, (), is_turn=False)
        body: dict[str, Any] = options.json_data if isinstance(options.json_data, dict) else {}
        messages = body.get("messages")
        run = outer.run if outer is not None else _found(active, body)
        return cls(
            outer, run, cast("Sequence[Any]", messages) if isinstance(messages, list | tuple) else (), is_turn=True
        )

    def limit_reached(self) -> Hit | None:
        """The limit that forbids this call."""
        return self.run.allowance.reached() if self.run is not None and self._is_turn else None

    def attributes(self, active: Runtime) -> dict[str, Any]:
        """What the call's span carries of its run and agent."""
        return owner_attributes(active.config, self.run)

    def next_turn(self) -> int | None:
        """The turn that this call is; None when it is none."""
        if not self._is_turn:
            return None
        if self.run is not None:
            self._turn = self.run.next_turn()
        return self._turn

    def run_id(self, recording: Recording) -> str:
        """The run's id; of a call outside of any run, the run that it is by itself."""
        if self._inside is not None:
            return self._inside.run_id
        return f"{recording.ids.trace_id:032x}" if self.parent is None else recording_run_id()

    @guard.guarded
    def begun(self, active: Runtime, at_time: int) -> None:
        """The call was sent, at Unix ns: the results in its request end the tool calls that they are of."""
        run, results = self.run, results_in(self._messages)
        self._messages = ()
        if run is not None and results:
            active.pipeline.later(lambda: run.tool_uses.answered(run, results, at_time))

    @guard.guarded
    def check_price(self, active: Runtime, provider: str, model: object) -> None:
        """Under a cost cap, a model without a price is worth a warning at once: the cap will not hold for it."""
        run = self.run
        limits = run.limits if run is not None else None
        if (
            not self._is_turn
            or run is None
            or limits is None
            or limits.max_cost_usd is None
            or not isinstance(model, str)
        ):
            return
        if (provider, model) not in active.models_checked:
            active.models_checked.add((provider, model))
            active.pipeline.later(lambda: _warn_unpriced(active, run, provider, model))

    def ended(self, recording: Recording, answer: Answer) -> None:
        """The call is over: its span ends, and the run takes in what it used and asked for."""
        spending = self._settling(recording, answer)
        if not runtime.end(recording) and spending is not None:
            spending.settle()

    @guard.guarded
    def _settling(self, recording: Recording, answer: Answer) -> Spending | None:
        run, inferred, turn = self.run, self._inferred, self._turn
        active = runtime.configured()
        if run is None or active is None or not self._is_turn:
            return None
        overrides = active.config.price_overrides
        start, payload = recording.start, recording.payload
        late, started = payload.attributes, start.start_time

        def usage() -> Mapping[str, Any]:
            known = {**start.attributes, **late, **answer.reading().attributes}
            return known | cost_attributes(known, started, overrides) if at.USAGE_RAW in known else known

        spending = run.ledger.spend(usage)
        if inferred is not None or (run.limits is not None and run.limits.of_usage):
            # The next call needs what this answer says, and a long one is not read on the host's thread if need be.
            payload.awaited = answer.streamed or len(answer.body or b"") > SHORT_ANSWER_BYTES
        failed = payload.failed
        if inferred is not None and failed is not None:
            active.chains.failed(inferred)
        elif inferred is not None:
            active.chains.answered(inferred, lambda: answer.reading().message, recording.now())

        def settled(known: Mapping[str, Any]) -> None:
            """On the worker's thread."""
            spending.settle(known)
            ended = recording.end_time
            if inferred is not None:
                active.chains.settle(inferred, known, ended, payload.failed)
            elif (message := answer.reading().message) is not None:
                run.tool_uses.learn(message, ended, turn)

        payload.settled = settled
        return spending


def _warn_unpriced(active: Runtime, run: Run, provider: str, model: str) -> None:
    """On the worker's thread: the price list takes half a second to import."""
    if is_priced(provider, model, active.config.price_overrides):
        return
    run.event(at.UNPRICED_EVENT, **{at.REQUEST_MODEL: model})
    guard.warn_once(
        f"unpriced {model}",
        "loopscope: max_cost_usd cannot hold for the model %r of %s: its price is not known; set price_overrides",
        model,
        provider,
    )


@guard.guarded
def _found(active: Runtime, body: Mapping[str, Any]) -> InferredRun | None:
    return active.chains.place(body)
