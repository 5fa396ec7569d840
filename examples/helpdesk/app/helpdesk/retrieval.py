"""Finding the passages that belong to a question: plain word overlap, which is enough for short manuals."""

import re

PASSAGE_WORDS = 40
SIZE_LIMIT = 64 * 1024
STOP_WORDS = set("a an and are as at be by do does for from how i if in is it of on or that the to what when with you".split())


def words(text):
    return {word for word in re.findall(r"[a-z0-9_]+", text.lower()) if word not in STOP_WORDS}


def passages(text, size=PASSAGE_WORDS):
    tokens = text.split()
    return [" ".join(tokens[at : at + size]) for at in range(0, len(tokens), size)]


class Retriever:
    def __init__(self, documents, prefix):
        self.documents = documents
        self.prefix = prefix
        self._passages = None

    def load(self):
        """Read every small document under the prefix once."""
        if self._passages is None:
            self._passages = []
            for key, size in self.documents.keys(self.prefix):
                if 0 < size <= SIZE_LIMIT:
                    self._passages += [(key, text, words(text)) for text in passages(self.documents.read(key))]
        return self._passages

    def best(self, question, count=1):
        """The passages that share most words with the question: [(key, text)]."""
        wanted = words(question)
        scored = [(len(wanted & have), key, text) for key, text, have in self.load()]
        scored = sorted((item for item in scored if item[0]), key=lambda item: (-item[0], item[1]))
        return [(key, text) for _, key, text in scored[:count]]
