"""Batch jobs: questions that wait in the queue for the night."""

import json

from .clients import Component


class Jobs(Component):
    service = "sqs"

    def __init__(self, queue, client=None):
        super().__init__(client)
        self.url = queue if queue.startswith("http") else self.client.get_queue_url(QueueName=queue)["QueueUrl"]

    def send(self, job_id, question):
        body = json.dumps({"id": job_id, "question": question})
        return self.client.send_message(QueueUrl=self.url, MessageBody=body)["MessageId"]

    def receive(self, count=1, wait=1):
        """[(receipt, job)]; a job that is not finished comes back after a while."""
        reply = self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=count, WaitTimeSeconds=wait)
        return [(message["ReceiptHandle"], json.loads(message["Body"])) for message in reply.get("Messages", [])]

    def finish(self, receipt):
        self.client.delete_message(QueueUrl=self.url, ReceiptHandle=receipt)
