"""Servers that answer as told, for the adapters' tests: one in memory, one on a free loopback
port.
"""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.metadata import requires
from threading import Event
from typing import Any

import pytest
from patience import HANGS_SECONDS

from nano_vm.adapters import OpenAIAdapter


def http_of(provider: str) -> Any:
    """The HTTP library that a provider's stands on: openai 2 on httpx, openai 3 on httpx2. The
    adapters work with both, and so do their tests. It is asked of what is installed, since the
    provider's takes a second to import, in each process that only reads the tests.
    """
    needs = {re.split(r"[^\w-]", one)[0] for one in requires(provider) or () if "extra" not in one}
    return import_module("httpx2" if "httpx2" in needs else "httpx")


http = http_of("openai")

# pydantic warns of what it finds in LiteLLM's own types
LITELLM_NOISE = [
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_[a-z_]*' attribute"),
]


def served(http: Any, *responses: Any) -> tuple[Any, list[Any]]:
    """A client, of the HTTP library *http*, whose server gives *responses* in turn, or raises them;
    and what it is asked.
    """
    requests: list[Any] = []

    def answer(request: Any) -> Any:
        requests.append(request)
        response = responses[min(len(requests), len(responses)) - 1]
        if isinstance(response, Exception):
            raise response
        return response

    return http.AsyncClient(transport=http.MockTransport(answer)), requests


def canned(*responses: Any, **options: Any) -> OpenAIAdapter:
    """An adapter whose server gives *responses* in turn, or raises them; `adapter.requests` keeps
    the calls.
    """
    client, requests = served(http, *responses)
    options = {"base_url": "http://llm.test/v1", "api_key": "sk-0123456789"} | options
    adapter = OpenAIAdapter("tiny", http_client=client, **options)
    adapter.requests = requests  # type: ignore[attr-defined]
    return adapter


def chat(
    content: Any = "yes", finish_reason: str | None = "stop", **message: Any
) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-2026",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, **message},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }


class FaultyServer:
    """A server that is told by the name of the model how to answer: a status, ``slow``, ``cut``, or
    else with "yes".
    """

    calls = 0

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # headers and body in one packet: in two, each call waits 40 ms for an acknowledgement
            wbufsize = -1

            def do_POST(self) -> None:
                outer.calls += 1
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model = request["model"]
                status = int(model) if model.isdigit() else 200
                if model == "slow":
                    outer.released.wait(HANGS_SECONDS)
                body = (
                    chat()
                    if status == 200
                    else {"error": {"message": "no: " + self.headers["authorization"]}}
                )
                if request.get("stream") and status == 200:
                    sent = b"".join(
                        b"data: " + json.dumps(part).encode() + b"\n\n" for part in pieces("yes")
                    )
                    kind = "text/event-stream"
                else:
                    sent, kind = json.dumps(body).encode(), "application/json"
                if model == "cut":
                    sent, self.close_connection = sent[: sent.index(b"\n\n") + 2], True
                self.send_response(status)
                self.send_header("retry-after", "3")
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(sent) + 99 * (model == "cut")))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None:
                pass

        self.released = Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def pieces(text: str) -> list[dict[str, Any]]:
    """A streamed chat completion of *text*."""
    delta = {"model": "tiny-2026", "id": "1", "object": "chat.completion.chunk", "created": 1}
    return [
        {
            **delta,
            "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
            ],
        },
        {**delta, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**delta, "choices": [], "usage": chat()["usage"]},
    ]


Reply = tuple[int, dict[str, str], Any]
"""Status, further headers and body of an answer; a chat completion is sent as a stream where one is
asked for.
"""


class Wire:
    """A server on a loopback port that gives *replies* in turn, the last one for ever; ``requests``
    keeps what it was sent.

    One that *ignores_stream* answers with plain JSON also where a stream was asked for, as some
    gateways do.
    """

    def __init__(self, *replies: Reply, ignores_stream: bool = False) -> None:
        outer = self
        self.requests: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(request)
                status, headers, body = replies[min(len(outer.requests), len(replies)) - 1]
                streamed = bool(request.get("stream")) and status == 200 and not ignores_stream
                if streamed:
                    sent = b"".join(
                        b"data: " + json.dumps(part).encode() + b"\n\n" for part in as_stream(body)
                    )
                    sent += b"data: [DONE]\n\n"
                else:
                    sent = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                kind = "text/event-stream" if streamed else "application/json"
                for name, value in {
                    "content-type": kind,
                    "content-length": str(len(sent)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


def as_stream(body: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat completion in the pieces of a stream."""
    head = {"model": body["model"], "id": "1", "object": "chat.completion.chunk", "created": 1}
    choice = body["choices"][0]

    def piece(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    message = {key: value for key, value in choice["message"].items() if value is not None}
    return [
        piece(message),
        piece({}, choice["finish_reason"]),
        {**head, "choices": [], "usage": body["usage"]},
    ]
