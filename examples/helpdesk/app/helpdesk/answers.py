"""Answers from the language model."""

from botocore.exceptions import ClientError

from .clients import Component

SYSTEM = "Answer in one short sentence, from the text you are given."


class ModelBusy(RuntimeError):
    pass


class Answerer(Component):
    service = "bedrock-runtime"

    def __init__(self, model, max_tokens=64, client=None):
        super().__init__(client)
        self.model = model
        self.settings = {"maxTokens": max_tokens, "temperature": 0.0, "topP": 1.0}
        self.tokens = 0

    def _messages(self, question, context):
        text = f"Text: {context}\n\nQuestion: {question}" if context else question
        return [{"role": "user", "content": [{"text": text}]}]

    def answer(self, question, context=""):
        try:
            reply = self.client.converse(
                modelId=self.model,
                system=[{"text": SYSTEM}],
                messages=self._messages(question, context),
                inferenceConfig=self.settings,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in ("ThrottlingException", "ModelNotReadyException"):
                raise ModelBusy(self.model) from error
            raise
        usage = reply["usage"]
        self.tokens += usage["inputTokens"] + usage["outputTokens"]
        return {"text": reply["output"]["message"]["content"][0]["text"].strip(), "stopped": reply["stopReason"]}

    def stream(self, question, context=""):
        """Yield the answer piece by piece."""
        reply = self.client.converse_stream(
            modelId=self.model,
            system=[{"text": SYSTEM}],
            messages=self._messages(question, context),
            inferenceConfig=self.settings,
        )
        for event in reply["stream"]:
            if "contentBlockDelta" in event:
                yield event["contentBlockDelta"]["delta"]["text"]
