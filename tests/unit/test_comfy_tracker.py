"""Where a prompt is, whatever news of it arrives, in whatever order."""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from morpheus_worker.comfy.history import End, HistoryEntry
from morpheus_worker.comfy.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Message,
    NodeProgress,
    NodeState,
    Other,
    Preview,
    ProgressState,
    Status,
)
from morpheus_worker.comfy.tracker import (
    ENDED_STATES,
    TRANSITIONS,
    IllegalTransitionError,
    Place,
    PromptTracker,
    Seen,
    Signal,
    State,
)

P = "p"
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {}},
    "2": {"class_type": "KSampler", "inputs": {}},
    "3": {"class_type": "VAEDecode", "inputs": {}},
    "4": {"class_type": "SaveImage", "inputs": {}},
}
ERROR = ExecutionError(P, "2", "KSampler", "RuntimeError", "no")
INTERRUPTED = ExecutionInterrupted(P, "2", "KSampler")
FILED = {end: HistoryEntry(P, end, error=ERROR if end == End.ERROR else None) for end in End}
PLACES: dict[str, Place | HistoryEntry] = {"running": Place.RUNNING, "nowhere": Place.NOWHERE}
PLACES |= {str(end): entry for end, entry in FILED.items()}

News = Message | Seen | HistoryEntry


class Hand:
    """A clock's hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def tracker_after(*news: News, graph: dict[str, Any] = GRAPH) -> PromptTracker:
    tracker = PromptTracker(P, graph, Hand())
    for item in news:
        tracker.observe(item)
    return tracker


# --- the table


def test_every_state_that_has_not_ended_takes_every_signal() -> None:
    assert set(TRANSITIONS) | ENDED_STATES == set(State)
    assert not set(TRANSITIONS) & ENDED_STATES
    assert all(set(row) == set(Signal) for row in TRANSITIONS.values())


@pytest.mark.parametrize(
    ("news", "state"),
    [
        ((), State.QUEUED),
        ((Seen(Place.PENDING),), State.QUEUED),
        ((Seen(Place.RUNNING),), State.EXECUTING),
        ((ExecutionStart(P),), State.EXECUTING),
        ((ExecutionStart(P), Seen(Place.PENDING)), State.EXECUTING),
        ((ExecutionStart(P), ExecutionSuccess(P)), State.SETTLING),
        ((ExecutionStart(P), Executing(P, None)), State.SETTLING),
        ((ExecutionSuccess(P), Executing(P, "2")), State.SETTLING),
        ((ExecutionSuccess(P), Seen(Place.RUNNING)), State.SETTLING),
        ((ExecutionSuccess(P), Executing(P, None), FILED[End.SUCCESS]), State.SUCCEEDED),
        ((FILED[End.SUCCESS],), State.SUCCEEDED),
        ((ExecutionStart(P), ERROR), State.FAILED),
        ((FILED[End.ERROR],), State.FAILED),
        ((ExecutionStart(P), INTERRUPTED), State.INTERRUPTED),
        ((FILED[End.INTERRUPTED],), State.INTERRUPTED),
        ((Seen(Place.NOWHERE),), State.MISSING),
        ((Seen(Place.NOWHERE), Seen(Place.NOWHERE)), State.LOST),
        ((Seen(Place.NOWHERE), FILED[End.SUCCESS]), State.SUCCEEDED),
        ((Seen(Place.NOWHERE), Seen(Place.PENDING), Seen(Place.NOWHERE)), State.MISSING),
        ((Seen(Place.NOWHERE), ExecutionStart(P), Seen(Place.NOWHERE)), State.MISSING),
        ((ExecutionSuccess(P), Seen(Place.NOWHERE), Seen(Place.NOWHERE)), State.LOST),
    ],
)
def test_the_state_after_the_news(news: tuple[News, ...], state: State) -> None:
    tracker = tracker_after(*news)
    assert tracker.state == state
    assert tracker.ended is (state in ENDED_STATES)


@pytest.mark.parametrize("end", [FILED[End.SUCCESS], FILED[End.ERROR], FILED[End.INTERRUPTED], ERROR, INTERRUPTED])
@pytest.mark.parametrize("news", [ExecutionStart(P), ExecutionSuccess(P), Seen(Place.NOWHERE), FILED[End.ERROR]])
def test_news_after_the_end_are_an_error(end: News, news: News) -> None:
    tracker = tracker_after(end)
    state = tracker.state
    with pytest.raises(IllegalTransitionError, match=P):
        tracker.observe(news)
    assert tracker.state == state


@pytest.mark.parametrize("news", [Status(1), Preview("image/png", b""), Other("x"), Other("y", {"prompt_id": P})])
def test_messages_about_nothing_in_particular_change_nothing(news: Message) -> None:
    assert tracker_after(news).state == State.QUEUED
    tracker_after(FILED[End.SUCCESS], news)


# --- what it remembers of the end


def test_the_error_is_that_of_the_message_or_of_the_entry() -> None:
    assert tracker_after(ExecutionStart(P), ERROR).error is ERROR
    assert tracker_after(FILED[End.ERROR]).error is ERROR


def test_the_entry_is_there_after_success() -> None:
    assert tracker_after(FILED[End.SUCCESS]).entry is FILED[End.SUCCESS]


def test_the_end_is_announced_only_by_comfyuis_last_message() -> None:
    assert not tracker_after(ExecutionSuccess(P)).end_was_announced
    assert not tracker_after(FILED[End.SUCCESS]).end_was_announced
    assert tracker_after(ExecutionSuccess(P), Executing(P, None)).end_was_announced


def test_it_started_when_the_first_sign_of_it_came() -> None:
    hand = Hand()
    tracker = PromptTracker(P, GRAPH, hand)
    tracker.observe(Seen(Place.PENDING))
    assert tracker.started_at_s is None
    hand.now_s = 103.0
    tracker.observe(ExecutionStart(P))
    hand.now_s = 110.0
    tracker.observe(Executing(P, "1"))
    assert tracker.started_at_s == 103.0


# --- how far it is


def test_a_queued_prompt_says_so() -> None:
    progress = tracker_after(Seen(Place.PENDING)).progress
    assert progress.wire() == {"stage": "queued", "percent": 0.0}


def test_progress_counts_cached_and_finished_nodes_and_the_steps_of_the_running_one() -> None:
    tracker = PromptTracker(P, GRAPH, Hand())
    seen = []
    for news in (
        ExecutionStart(P),
        ExecutionCached(P, ("1",)),
        Executing(P, "2"),
        NodeProgress(P, "2", 1, 4),
        NodeProgress(P, "2", 4, 4),
        Executing(P, "3"),
        ProgressState(P, {"2": NodeState(4, 4, "finished"), "3": NodeState(0, 1, "running")}),
        Executing(P, "4"),
        Executed(P, "4", {"images": []}),
    ):
        tracker.observe(news)
        progress = tracker.progress
        seen.append((progress.percent, progress.node_id, progress.class_type, progress.step, progress.steps))
    assert seen == [
        (0.0, None, None, None, None),
        (25.0, None, None, None, None),
        (25.0, "2", "KSampler", None, None),
        (31.2, "2", "KSampler", 1, 4),
        (50.0, "2", "KSampler", 4, 4),
        (50.0, "3", "VAEDecode", None, None),
        (50.0, "3", "VAEDecode", None, None),
        (75.0, "4", "SaveImage", None, None),
        (100.0, "4", "SaveImage", None, None),
    ]


def test_nodes_of_an_expanded_subgraph_do_not_count_beyond_the_graph() -> None:
    tracker = tracker_after(
        ExecutionStart(P), *(Executed(P, f"2.0.0.{number}", None) for number in range(50)), Executing(P, "2.0.0.7")
    )
    assert tracker.progress.percent == 0.0
    assert tracker.progress.class_type is None


def test_a_node_that_runs_again_does_not_turn_progress_back() -> None:
    tracker = tracker_after(ExecutionStart(P), NodeProgress(P, "2", 4, 4), NodeProgress(P, "2", 1, 4))
    assert tracker.progress.percent == 25.0


def test_an_empty_graph_has_no_percent() -> None:
    assert tracker_after(ExecutionStart(P), Executing(P, "1"), graph={}).progress.percent == 0.0


NODES = st.sampled_from(["1", "2", "3", "4", "2.0.0.1", "nine"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2, 30).map(float)
ANY_NEWS: st.SearchStrategy[News] = st.one_of(
    st.just(ExecutionStart(P)),
    st.builds(ExecutionCached, st.just(P), st.lists(NODES, max_size=4).map(tuple)),
    st.builds(Executing, st.just(P), NODES),
    st.builds(NodeProgress, st.just(P), st.none() | NODES, NUMBERS, NUMBERS),
    st.builds(
        ProgressState,
        st.just(P),
        st.dictionaries(
            NODES, st.builds(NodeState, NUMBERS, NUMBERS, st.sampled_from(["running", "finished", "error", "pending"]))
        ),
    ),
    st.builds(Executed, st.just(P), NODES, st.none()),
    st.sampled_from([ExecutionSuccess(P), Executing(P, None), Status(1)]),
    st.builds(Seen, st.sampled_from(Place)),
)


@given(st.lists(ANY_NEWS, max_size=30))
@example([ExecutionCached(P, ("1",)), Seen(Place.NOWHERE), Seen(Place.PENDING)])
def test_percent_never_falls_and_stays_within_bounds(news: list[News]) -> None:
    tracker, last = PromptTracker(P, GRAPH, Hand()), 0.0
    for item in news:
        tracker.observe(item)
        progress = tracker.progress
        assert last <= progress.percent <= 100.0
        last = progress.percent
        if tracker.ended:
            return


# --- against a ComfyUI, over a stream that loses, repeats and delays


class ComfyModel(RuleBasedStateMachine):
    """A ComfyUI that takes one step at a time, its event stream, and a client that asks now and then.

    What is asked over HTTP is always answered truly; a message may come twice, late, or not at all. Messages keep
    their order, as they do on a WebSocket.
    """

    @initialize(
        end=st.sampled_from(["success", "error", "interrupted", "deleted", "restarted"]),
        cached=st.booleans(),
        lost_at=st.integers(0, 12),
    )
    def a_prompt_is_queued(self, end: str, cached: bool, lost_at: int) -> None:
        self.end = end
        self.steps = deque(_script(end, cached=cached))
        if end == "restarted":
            unfiled = takewhile(lambda step: step[0] is None or isinstance(PLACES[step[0]], Place), self.steps)
            self.steps = deque([*list(unfiled)[:lost_at], ("nowhere", None)])
        self.place: Place | HistoryEntry = Place.PENDING
        self.wire: deque[Message] = deque()
        self.last_delivered: Message | None = None
        self.tracker = PromptTracker(P, GRAPH, Hand())
        self.percent = 0.0

    @precondition(lambda self: bool(self.steps))
    @rule()
    def comfyui_takes_a_step(self) -> None:
        place, message = self.steps.popleft()
        if place is not None:
            self.place = PLACES[place]
        if message is not None:
            self.wire.append(message)

    @precondition(lambda self: bool(self.wire))
    @rule()
    def a_message_arrives(self) -> None:
        self.last_delivered = self.wire.popleft()
        self.learn(self.last_delivered)

    @precondition(lambda self: self.last_delivered is not None)
    @rule()
    def a_message_arrives_again(self) -> None:
        assert self.last_delivered is not None
        self.learn(self.last_delivered)

    @precondition(lambda self: bool(self.wire))
    @rule(number=st.integers(1, 5))
    def messages_are_lost(self, number: int) -> None:
        for _ in range(min(number, len(self.wire))):
            self.wire.popleft()

    @rule()
    def the_client_asks(self) -> None:
        self.learn(self.place if isinstance(self.place, HistoryEntry) else Seen(self.place))

    def learn(self, news: News) -> None:
        if self.tracker.ended:
            return
        self.tracker.observe(news)
        progress = self.tracker.progress
        assert self.percent <= progress.percent <= 100.0
        self.percent = progress.percent

    def teardown(self) -> None:
        """ComfyUI comes to its end, and then only the asking goes on: within two more answers the tracker knows it."""
        if not hasattr(self, "tracker"):
            return
        while self.steps:
            self.comfyui_takes_a_step()
        note(f"{self.end}; {len(self.wire)} messages are lost at last")
        for _ in range(2):
            self.the_client_asks()
        assert (
            self.tracker.state
            in {
                "success": {State.SUCCEEDED},
                "error": {State.FAILED},
                "interrupted": {State.INTERRUPTED},
                "deleted": {State.LOST},
                "restarted": {State.LOST},
            }[self.end]
        )
        if self.end == "error":
            assert self.tracker.error == ERROR


def _script(end: str, *, cached: bool) -> list[tuple[str | None, Message | None]]:
    """(where the prompt is from now on, what is said of it), step by step as in ComfyUI 0.3.64."""
    if end == "deleted":
        return [("nowhere", None)]
    steps: list[tuple[str | None, Message | None]] = [
        ("running", None),
        (None, ExecutionStart(P)),
        (None, ExecutionCached(P, ("1",) if cached else ())),
        (None, Executing(P, "2", "2")),
        (None, ProgressState(P, {"2": NodeState(0, 4, "running")})),
        (None, NodeProgress(P, "2", 2, 4)),
    ]
    if end == "error":
        return [*steps, (None, ERROR), ("error", None), (None, Executing(P, None))]
    if end == "interrupted":
        return [*steps, (None, INTERRUPTED), ("interrupted", None), (None, Executing(P, None))]
    return [
        *steps,
        (None, ProgressState(P, {"2": NodeState(4, 4, "finished")})),
        (None, Executing(P, "4", "4")),
        (None, Executed(P, "4", {"images": []}, "4")),
        (None, ExecutionSuccess(P)),
        ("success", None),
        (None, Executing(P, None)),
    ]


TestComfyModel = ComfyModel.TestCase
TestComfyModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_a_node_that_is_blocked_is_no_end() -> None:
    """ComfyUI tells of it as of an error, and goes on with the other nodes."""
    tracker = PromptTracker(P, {"1": {"class_type": "A"}, "2": {"class_type": "B"}}, lambda: 0.0)
    blocked = ExecutionError(P, "2", "B", "ExecutionBlocked", "Execution Blocked: no face")
    tracker.observe(ExecutionStart(P))
    tracker.observe(blocked)
    assert (tracker.state, tracker.blocked, tracker.error) == (State.EXECUTING, [blocked], None)
    tracker.observe(ExecutionSuccess(P))
    assert (tracker.state, tracker.error) == (State.SETTLING, None)
