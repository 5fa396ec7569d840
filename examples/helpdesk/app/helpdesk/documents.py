"""Documents in the bucket."""

from botocore.exceptions import ClientError

from .clients import Component


class DocumentMissing(KeyError):
    pass


class Documents(Component):
    service = "s3"

    def __init__(self, bucket, client=None):
        super().__init__(client)
        self.bucket = bucket

    def keys(self, prefix):
        """All (key, size) under the prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", [])]

    def folders(self, prefix):
        """Names of the 'folders' directly under the prefix."""
        page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        return [item["Prefix"] for item in page.get("CommonPrefixes", [])]

    def read(self, key):
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise DocumentMissing(key) from error
            raise
        return answer["Body"].read().decode("utf-8")

    def start(self, key, size=200):
        """The first bytes of a document, for previews."""
        answer = self.client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes=0-{size - 1}")
        return answer["Body"].read().decode("utf-8", errors="ignore")

    def exists(self, key):
        try:
            self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
        return True

    def write(self, key, text, author=None):
        """Returns the ETag, without its quotes."""
        arguments = {
            "Bucket": self.bucket,
            "Key": key,
            "Body": text.encode("utf-8"),
            "ContentType": "text/plain; charset=utf-8",
        }
        if author:
            arguments["Metadata"] = {"author": author}
        return self.client.put_object(**arguments)["ETag"].strip('"')

    def author(self, key):
        return self.client.head_object(Bucket=self.bucket, Key=key)["Metadata"].get("author")

    def remove(self, *keys):
        for key in keys:
            self.client.delete_object(Bucket=self.bucket, Key=key)
