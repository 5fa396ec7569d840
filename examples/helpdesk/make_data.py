"""Make `data/` and `questions.jsonl` from the Python manual of this interpreter and an embedding endpoint.

    python examples/helpdesk/make_data.py --embed http://127.0.0.1:PORT/v1 [--model all-minilm-l6-v2] [--check]

The results are committed, so that nobody needs to embed 240 chunks before a demo. Run it again when the questions
change. `--check` writes nothing: it embeds every tenth chunk and says how far its vector is from the committed one.
Files: `chunks.jsonl` (id, source, chunk), `vectors.npy` (float16, rows as in chunks.jsonl), `question_vectors.npy`
(float16, rows as in questions.jsonl), `topic_router.json` (softmax weights from a question's vector to its topic).
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.request
from pathlib import Path

import numpy

HERE = Path(__file__).parent
DATA = HERE / "data"
CHUNK_WORDS = 90
CHUNKS = 240
CONTEXT_WORDS = 30

# Topic -> the manual's pages that belong to it.
TOPICS = {
    "strings": "strings string-methods formatstrings",
    "numbers": "integers floating imaginary numbers numeric-types binary bitwise shifting power unary",
    "containers": "typesseq typesseq-mutable typesmapping lists dict slicings subscriptions sequence-types in booleans",
    "classes": "class attribute-access customization specialattrs typesmethods id-classes callable-types types",
    "functions": "function calls lambda return yield typesfunctions await async",
    "flow": "if for while break continue pass with compound else",
    "errors": "try raise assert exceptions debugger context-managers",
    "names": "import naming global nonlocal dynamic-features identifiers execmodel assignment del atom-identifiers",
}

# Topic, page, words with which the context begins, question.
QUESTIONS = [
    ("strings", "formatstrings", "Format strings contain", "What surrounds a replacement field in a format string?"),
    ("strings", "formatstrings", "If you need to include a brace", "How do I write a literal brace in a format string?"),
    ("strings", "string-methods", "Return a copy of the string with its first character capitalized", "What does str.capitalize return?"),
    ("strings", "string-methods", "Return the number of non-overlapping occurrences", "What does str.count count?"),
    ("strings", "strings", "Bytes literals are always prefixed", "With which letter do bytes literals begin?"),
    ("numbers", "integers", "There is no limit for the length", "How long may an integer literal be?"),
    ("numbers", "integers", "Underscores are ignored", "What do underscores in a number mean?"),
    ("numbers", "shifting", "A right shift by", "What does a right shift by n bits do?"),
    ("numbers", "power", "The power operator binds more tightly", "Does the power operator bind more tightly than a minus on its left?"),
    ("numbers", "floating", "Note that the integer and exponent parts", "Which radix do the parts of a floating point literal use?"),
    ("containers", "typesseq", "There are three basic sequence types", "Which are the three basic sequence types?"),
    ("containers", "lists", "A list display yields a new list object", "What does a list display yield?"),
    ("containers", "typesmapping", "mapping* object maps", "What does a mapping object do?"),
    ("containers", "slicings", "A slicing selects a range", "What does a slicing select?"),
    ("containers", "dict", "A dictionary display yields", "What does a dictionary display yield?"),
    ("classes", "class", "A class definition is an executable statement", "From which class do classes without an inheritance list inherit?"),
    ("classes", "customization", "Called to create a new instance", "When is the __new__ method called?"),
    ("classes", "attribute-access", "Called when the default attribute access fails", "When is __getattr__ called?"),
    ("classes", "customization", "Called when the instance is about to be destroyed", "When is the __del__ method called?"),
    ("classes", "attribute-access", "Called when an attribute assignment is attempted", "When is __setattr__ called?"),
    ("functions", "lambda", "Lambda expressions", "What are lambda expressions used for?"),
    ("functions", "return", "leaves the current function call", "What does the return statement do?"),
    ("functions", "yield", "Yield expressions and statements are only used", "Where are yield statements used?"),
    ("functions", "await", "Suspend the execution", "What does an await expression suspend?"),
    ("functions", "calls", "A call calls a callable object", "What does a call call?"),
    ("flow", "for", "statement is used to iterate", "What is the for statement used for?"),
    ("flow", "while", "statement is used for repeated execution", "How long does a while statement repeat?"),
    ("flow", "break", "It terminates the nearest enclosing loop", "Which loop does break terminate?"),
    ("flow", "continue", "It continues with the next cycle", "What does the continue statement do?"),
    ("flow", "pass", "is a null operation", "What happens when a pass statement is executed?"),
    ("errors", "raise", "re-raises the exception", "What does raise without an expression do?"),
    ("errors", "assert", "Assert statements are a convenient way", "What are assert statements for?"),
    ("errors", "exceptions", "Exceptions are a means of breaking out", "What are exceptions?"),
    ("errors", "debugger", "defines an interactive source code debugger", "Which module is the interactive debugger?"),
    ("errors", "try", "statement specifies exception handlers", "What does the try statement specify?"),
    ("names", "import", "find a module, loading and initializing", "What is the first step of an import statement?"),
    ("names", "global", "statement is a declaration which holds", "For how much code does a global statement hold?"),
    ("names", "nonlocal", "statement causes the listed identifiers", "What does the nonlocal statement do?"),
    ("names", "naming", "refer to objects. Names are introduced", "How are names introduced?"),
    ("names", "del", "Deletion of a name removes the binding", "What does deleting a name remove?"),
]  # fmt: skip


def manual() -> dict[str, str]:
    from pydoc_data.topics import topics

    return {name: " ".join(text.split()) for name, text in topics.items()}


def chunks(pages: dict[str, str]) -> list[dict[str, str]]:
    """240 chunks of 90 words: those the questions need first, then every page's share, in the order of the manual."""
    cut = {
        name: [" ".join(words[at : at + CHUNK_WORDS]) for at in range(0, len(words), CHUNK_WORDS)]
        for name, words in ((name, text.split()) for name, text in sorted(pages.items()))
    }
    chosen: set[tuple[str, int]] = set()
    for _, page, needle, _ in QUESTIONS:
        at = len(pages[page][: pages[page].index(needle)].split())
        chosen.add((page, min(at // CHUNK_WORDS, len(cut[page]) - 1)))
    round_ = 0
    while len(chosen) < CHUNKS:
        for name, parts in cut.items():
            if round_ < len(parts) and len(chosen) < CHUNKS:
                chosen.add((name, round_))
        round_ += 1
    return [{"id": f"{name}#{at:03}", "source": f"topics/{name}.txt", "chunk": cut[name][at]} for name, at in sorted(chosen)]


def questions(pages: dict[str, str]) -> list[dict[str, str]]:
    found = []
    for number, (topic, page, needle, question) in enumerate(QUESTIONS, 1):
        text = pages[page]
        context = " ".join(text[text.index(needle) :].split()[:CONTEXT_WORDS])
        found.append(
            {"id": f"q{number:02}", "question": question, "context": context, "topic": topic, "source": f"topics/{page}.txt"}
        )
    return found


def embed(endpoint: str, model: str, texts: list[str]) -> numpy.ndarray:
    """float32, one row per text, each of length 1."""
    rows: list[list[float]] = []
    for at in range(0, len(texts), 16):
        body = json.dumps({"model": model, "input": texts[at : at + 16]}).encode()
        request = urllib.request.Request(endpoint + "/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as reply:
            rows += [item["embedding"] for item in sorted(json.load(reply)["data"], key=lambda item: item["index"])]
    found = numpy.asarray(rows, dtype=numpy.float32)
    return found / numpy.linalg.norm(found, axis=1, keepdims=True)


def router(vectors: numpy.ndarray, labels: list[str]) -> dict[str, object]:
    """Softmax regression from vector to topic, trained by plain gradient descent from zero: no chance in it."""
    names = sorted(TOPICS)
    wanted = numpy.eye(len(names))[[names.index(label) for label in labels]]
    weights, bias = numpy.zeros((vectors.shape[1], len(names))), numpy.zeros(len(names))
    # Rare topics count as much as frequent ones.
    share = (1.0 / wanted.sum(axis=0))[wanted.argmax(axis=1)][:, None] / len(names)
    for _ in range(2000):
        scores = vectors @ weights + bias
        scores = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        error = (scores / scores.sum(axis=1, keepdims=True) - wanted) * share
        weights -= 20.0 * (vectors.T @ error + 1e-4 * weights)
        bias -= 20.0 * error.sum(axis=0)
    return {"topics": names, "bias": numpy.round(bias, 4).tolist(), "weights": numpy.round(weights, 3).tolist()}


def route(artifact: dict[str, object], vectors: numpy.ndarray) -> list[str]:
    scores = vectors @ numpy.asarray(artifact["weights"]) + numpy.asarray(artifact["bias"])
    names = artifact["topics"]
    assert isinstance(names, list)
    return [names[at] for at in scores.argmax(axis=1)]


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def check(endpoint: str, model: str) -> int:
    rows = [json.loads(line) for line in (DATA / "chunks.jsonl").read_text(encoding="utf-8").splitlines()]
    held = numpy.load(DATA / "vectors.npy").astype(numpy.float32)
    fresh = embed(endpoint, model, [row["chunk"] for row in rows[::10]])
    kept = held[::10] / numpy.linalg.norm(held[::10], axis=1, keepdims=True)
    worst = float((fresh * kept).sum(axis=1).min())
    print(f"{len(fresh)} chunks embedded again; smallest cosine to the committed vectors {worst:.5f}")
    return 0 if worst > 0.999 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embed", required=True, help="base URL of an OpenAI-compatible embedding endpoint")
    parser.add_argument("--model", default="all-minilm-l6-v2")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        return check(arguments.embed, arguments.model)
    pages = manual()
    rows, asked = chunks(pages), questions(pages)
    page_topic = {page: topic for topic, listed in TOPICS.items() for page in listed.split()}
    vectors = embed(arguments.embed, arguments.model, [row["chunk"] for row in rows])
    question_vectors = embed(arguments.embed, arguments.model, [row["question"] for row in asked])
    of_topic = [(at, page_topic[row["id"].split("#")[0]]) for at, row in enumerate(rows) if row["id"].split("#")[0] in page_topic]
    artifact = router(vectors[[at for at, _ in of_topic]], [topic for _, topic in of_topic])
    guessed = route(artifact, question_vectors)
    right = sum(guess == row["topic"] for guess, row in zip(guessed, asked, strict=True))
    best = [rows[at]["source"] for at in (question_vectors @ vectors.T).argmax(axis=1)]
    hit = sum(source == row["source"] for source, row in zip(best, asked, strict=True))
    DATA.mkdir(exist_ok=True)
    write_lines(DATA / "chunks.jsonl", rows)
    write_lines(HERE / "questions.jsonl", asked)
    numpy.save(DATA / "vectors.npy", vectors.astype(numpy.float16))
    numpy.save(DATA / "question_vectors.npy", question_vectors.astype(numpy.float16))
    (DATA / "topic_router.json").write_text(json.dumps(artifact) + "\n", encoding="utf-8")
    print(f"{len(rows)} chunks, {len(asked)} questions; router right on {right}, nearest chunk on the right page for {hit}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
