"""An OpenAI-shaped embeddings endpoint on MiniLM: POST /v1/embeddings, GET /v1/models, GET /health."""

from __future__ import annotations

import argparse
import base64
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any

from crossload.lab.embedding.model import DIMENSION, NAME, Embedder
from crossload.lab.programs.serving import JsonHandler, serve

_TEXTS_MAX = 512


class _Handler(JsonHandler):
    embedder: Embedder
    turn = threading.Lock()

    def do_GET(self) -> None:
        match self.path:
            case "/health":
                self.reply(HTTPStatus.OK, {"status": "ok"})
            case "/v1/models":
                model = {"id": NAME, "object": "model", "owned_by": "lab", "dimension": DIMENSION}
                self.reply(HTTPStatus.OK, {"object": "list", "data": [model]})
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "not found")

    def do_POST(self) -> None:
        try:
            request = self.json_body()
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        if self.path != "/v1/embeddings":
            self._refuse(HTTPStatus.NOT_FOUND, "not found")
            return
        given: Any = request.get("input")
        texts: list[Any] = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        if not texts or len(texts) > _TEXTS_MAX or not all(isinstance(text, str) for text in texts):
            self._refuse(HTTPStatus.BAD_REQUEST, f"input must be a text or a list of 1 to {_TEXTS_MAX} texts")
            return
        with self.turn:
            vectors, tokens = self.embedder.embed(texts)
        packed = request.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                # Clients ask for base64 to save the time of printing and reading numbers.
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if packed else row.tolist(),
            }
            for index, row in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.reply(HTTPStatus.OK, {"object": "list", "model": NAME, "data": data, "usage": usage})

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    _Handler.embedder = Embedder(arguments.model)
    serve(_Handler, arguments.port)


if __name__ == "__main__":
    main()
