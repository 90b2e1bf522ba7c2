"""A stand-in for a model that compresses: an OpenAI-compatible endpoint that keeps the equations of a trace, by rule.

    python recipes/existing-traces/equations.py --port 8102

    "… we divide 290 by 2: \\frac{290}{2} = 145. So each group has 145." -> "290/2 = 145\n\\boxed{145}"

It needs nothing installed and always answers the same, so that the recipe runs anywhere, and again.
"""

from __future__ import annotations

import argparse
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "equations"
_EQUATION = re.compile(r"[$\d(][\d\s.,$%()*/+\-]{0,60}=\s*\$?-?[\d.,/%]*\d%?")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def compress(reasoning: str) -> str:
    """The equations of a text, each once, and the last one's result in a box; without equations the last number."""
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", reasoning)
    text = text.replace("\\times", "*").replace("\\div", "/").replace("\\$", "$").replace("\\%", "%")
    text = re.sub(r"\\(?:text|textbf|mathrm)\{[^{}]*\}|\\[\[\]()]|\*\*|\\[,;!]", " ", text)
    found = (" ".join(match.split()) for line in text.splitlines() for match in _EQUATION.findall(line))
    equations = list(dict.fromkeys(e for e in found if re.search(r"[*/+-]", e.partition("=")[0])))
    numbers = _NUMBER.findall(equations[-1] if equations else text)
    return "\n".join([*equations, f"\\boxed{{{numbers[-1]}}}"] if numbers else equations)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._reply({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = compress(asked["messages"][-1]["content"].partition("Reasoning:\n")[2])
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 0, "completion_tokens": len(text) // 3}
        self._reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

    def _reply(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8102)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()
