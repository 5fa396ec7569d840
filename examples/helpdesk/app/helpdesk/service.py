"""The service: retrieve, answer, keep the answer."""

import hmac
import json

from .answers import Answerer
from .clients import make_client
from .config import Config
from .documents import Documents
from .jobs import Jobs
from .retrieval import Retriever


class Helpdesk:
    def __init__(self, config=None):
        self.config = config or Config.from_env()
        self.documents = Documents(self.config.bucket)
        self.retriever = Retriever(self.documents, self.config.prefix)
        self.answerer = Answerer(self.config.model, self.config.max_tokens)

    def may_ask(self, shown):
        """Whether a caller showed the right key."""
        secret = make_client("secretsmanager").get_secret_value(SecretId=self.config.secret)["SecretString"]
        return hmac.compare_digest(secret.strip().encode(), shown.encode())

    def ask(self, question):
        found = self.retriever.best(question)
        key, context = found[0] if found else ("", "")
        return {"question": question, "source": key, **self.answerer.answer(question, context)}

    def work(self, folder, count=1):
        """Answer up to `count` waiting jobs; each answer is written before its job is taken off the queue."""
        jobs = Jobs(self.config.queue)
        written = []
        for receipt, job in jobs.receive(count):
            key = f"{folder}{job['id']}.json"
            self.documents.write(key, json.dumps(self.ask(job["question"])), author="helpdesk-batch")
            jobs.finish(receipt)
            written.append(key)
        return written
