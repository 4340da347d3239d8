"""The event stream over a real WebSocket that breaks, falls silent and talks nonsense."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import aiohttp
import pytest
import websocket

from morpheus_worker.comfy import socket as module
from morpheus_worker.comfy.codec import encode
from morpheus_worker.comfy.messages import Executing, ExecutionStart, Message, ProgressText
from morpheus_worker.comfy.socket import EventStream, Gap, Inbox
from tests.integration.peer import WAIT_S, Peer, peer_with


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.fixture
def stream(peer: Peer) -> Iterator[EventStream]:
    stream = EventStream(peer.url)
    stream.start()
    assert stream.wait_until_connected(WAIT_S)
    peer.wait_for(lambda: peer.sockets_opened)
    yield stream
    stream.close()


def say(peer: Peer, message: Message) -> None:
    peer.send(encode(message))


def next_message(inbox: Inbox) -> Message:
    news = inbox.get(timeout=WAIT_S)
    assert not isinstance(news, Gap)
    return news


def is_empty(inbox: Inbox) -> bool:
    try:
        inbox.get_nowait()
    except queue.Empty:
        return True
    return False


# --- who hears what


def test_it_connects_under_its_client_id(peer: Peer, stream: EventStream) -> None:
    assert stream.connected
    assert peer.sockets_opened == [stream.client_id]


def test_two_streams_have_two_ids(peer: Peer) -> None:
    assert EventStream(peer.url).client_id != EventStream(peer.url).client_id


def test_a_message_reaches_whoever_waits_for_its_prompt_and_nobody_else(peer: Peer, stream: EventStream) -> None:
    with stream.subscribe("p") as p, stream.subscribe("q") as q:
        for message in (ExecutionStart("q"), ExecutionStart("r"), ExecutionStart("p"), Executing("p", "1")):
            say(peer, message)
        assert [next_message(p), next_message(p)] == [ExecutionStart("p"), Executing("p", "1")]
        assert next_message(q) == ExecutionStart("q")
        assert is_empty(p)
        assert is_empty(q)


def test_messages_keep_their_order(peer: Peer, stream: EventStream) -> None:
    with stream.subscribe("p") as inbox:
        for number in range(200):
            say(peer, Executing("p", str(number)))
        assert [next_message(inbox) for _ in range(200)] == [Executing("p", str(number)) for number in range(200)]


def test_whoever_no_longer_waits_hears_nothing(peer: Peer, stream: EventStream) -> None:
    with stream.subscribe("p") as gone:
        pass
    with stream.subscribe("q") as q:
        say(peer, ExecutionStart("p"))
        say(peer, ExecutionStart("q"))
        assert next_message(q) == ExecutionStart("q")
    assert is_empty(gone)


def test_messages_of_no_prompt_are_nobodys(peer: Peer, stream: EventStream) -> None:
    with stream.subscribe("p") as inbox:
        say(peer, Executing(None, "1"))
        say(peer, ProgressText("1", "x" * 1_000_000))
        say(peer, ExecutionStart("p"))
        assert next_message(inbox) == ExecutionStart("p")


# --- nonsense


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        "[]",
        '{"type": "execution_start"}',
        '{"type": "execution_start", "data": {"prompt_id": ["p"]}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": Infinity}}}}',
        '{"type": "progress", "data": {"prompt_id": "p", "node": "1", "value": 1' + "0" * 400 + ', "max": 1}}',
        "[" * 100_000,
        b"",
        b"\x00\x00",
        b"\x00\x00\x00\x04\xff\xff\xff\xff",
    ],
    ids=range(10),
)
def test_a_frame_that_is_none_is_passed_over(peer: Peer, stream: EventStream, frame: str | bytes) -> None:
    with stream.subscribe("p") as inbox:
        peer.send(frame)
        say(peer, ExecutionStart("p"))
        assert isinstance(inbox.get(timeout=WAIT_S), Gap), "what it would have said is not known"
        assert next_message(inbox) == ExecutionStart("p")
    assert len(peer.sockets_opened) == 1


def test_a_text_frame_that_is_no_text_is_passed_over_too(peer: Peer, stream: EventStream) -> None:
    with stream.subscribe("p") as inbox:
        peer.send(b"\xff\xfe", opcode=aiohttp.WSMsgType.TEXT)
        say(peer, ExecutionStart("p"))
        assert isinstance(inbox.get(timeout=WAIT_S), Gap)
        assert next_message(inbox) == ExecutionStart("p")
    assert len(peer.sockets_opened) == 1


# --- breaks


@pytest.mark.parametrize("how", ["cut_sockets", "close_sockets"])
def test_a_connection_that_breaks_is_made_again_under_the_same_id(peer: Peer, stream: EventStream, how: str) -> None:
    """ComfyUI sends a prompt's events to the id that submitted it."""
    with stream.subscribe("p") as p, stream.subscribe("q") as q:
        getattr(peer, how)()
        assert isinstance(p.get(timeout=WAIT_S), Gap)
        assert isinstance(q.get(timeout=WAIT_S), Gap)
        peer.wait_for(lambda: len(peer.sockets_opened) == 2)
        say(peer, ExecutionStart("p"))
        assert next_message(p) == ExecutionStart("p")
    assert peer.sockets_opened == [stream.client_id] * 2


def test_it_keeps_trying_while_nobody_answers(peer: Peer, stream: EventStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_RETRY_S", 0.1)
    peer.refuses_sockets = True
    with stream.subscribe("p") as inbox:
        peer.cut_sockets()
        peer.wait_for(lambda: len(peer.routes(only="GET /ws")) >= 4)
        assert not stream.connected
        peer.refuses_sockets = False
        assert isinstance(inbox.get(timeout=WAIT_S), Gap)
    assert stream.connected


def test_it_connects_to_a_comfyui_that_comes_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with closing(EventStream(f"http://127.0.0.1:{port}")) as stream:
        stream.start()
        assert not stream.wait_until_connected(0.05)
        with peer_with(port=port):
            assert stream.wait_until_connected(WAIT_S)
            stream.close()


def test_silence_is_answered_by_a_ping_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_BEFORE_PING_S", 0.05)
    with peer_with() as peer, closing(EventStream(peer.url)) as stream:
        stream.start()
        peer.wait_for(lambda: peer.pings >= 4)
        assert len(peer.sockets_opened) == 1
        assert stream.connected


def test_silence_without_end_is_a_dead_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_BEFORE_PING_S", 0.05)
    with peer_with(answers_pings=False) as peer, closing(EventStream(peer.url)) as stream:
        with stream.subscribe("p") as inbox:
            stream.start()
            for _ in range(2):
                assert isinstance(inbox.get(timeout=WAIT_S), Gap)
        assert peer.pings >= 1


def test_renewed_it_has_another_id(peer: Peer, stream: EventStream) -> None:
    before = stream.client_id
    with stream.subscribe("p") as inbox:
        stream.renew()
        assert isinstance(inbox.get(timeout=WAIT_S), Gap)
    assert stream.client_id != before
    peer.wait_for(lambda: peer.sockets_opened == [before, stream.client_id])


def test_renewed_while_it_connects_it_ends_up_under_the_id_it_tells(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every prompt would be submitted under an id that nobody listens to."""
    opened, proceed = threading.Event(), threading.Event()
    create_connection = websocket.create_connection

    def held(*args: Any, **more: Any) -> Any:
        made = create_connection(*args, **more)
        opened.set()
        assert proceed.wait(WAIT_S)
        return made

    monkeypatch.setattr(websocket, "create_connection", held)
    with closing(EventStream(peer.url)) as stream:
        stream.start()
        assert opened.wait(WAIT_S)
        stream.renew()
        proceed.set()
        peer.wait_for(lambda: peer.sockets_opened[-1:] == [stream.client_id])


def test_a_proxy_of_the_machine_is_none_of_its_business(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with closing(EventStream(peer.url)) as stream:
        stream.start()
        peer.wait_for(lambda: peer.sockets_opened)


# --- the end


def test_closed_it_is_gone_and_stays_so(peer: Peer, stream: EventStream) -> None:
    stream.close()
    stream.close()
    assert not stream.connected
    assert not [thread for thread in threading.enumerate() if thread.name == "comfyui-events"]
    assert len(peer.sockets_opened) == 1


def test_closed_before_it_was_started(peer: Peer) -> None:
    EventStream(peer.url).close()


def test_closed_while_it_waits_for_the_next_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with closing(EventStream(f"http://127.0.0.1:{port}")) as stream:
        stream.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "comfyui-events"]
