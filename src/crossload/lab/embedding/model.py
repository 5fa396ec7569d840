"""MiniLM (int8) on onnxruntime, one thread: texts in, unit vectors of 384 numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossload.lab.embedding.wordpiece import PAD, token_ids, vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "all-minilm-l6-v2-int8"
DIMENSION = 384
_BATCH = 16


class Embedder:
    """Loads the network once. Not for several threads at a time."""

    def __init__(self, model_file: Path) -> None:
        import onnxruntime

        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Spinning threads would take a core from everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """(array of shape [len(texts), 384] with rows of length 1, number of tokens read)."""
        import numpy as np

        rows = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        numbers = [token_ids(text) for text in texts]
        # Alike lengths together: padding costs as much as text.
        order = sorted(range(len(texts)), key=lambda index: len(numbers[index]))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            rows[batch] = self._run([numbers[index] for index in batch])
        return rows, sum(map(len, numbers))

    def _run(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        import numpy as np

        width = max(map(len, batch))
        ids = np.full((len(batch), width), vocabulary()[PAD], dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, numbers in enumerate(batch):
            ids[row, : len(numbers)] = numbers
            mask[row, : len(numbers)] = 1
        hidden: Any = self._session.run(
            None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )[0]
        weights = mask[:, :, None].astype(np.float32)
        mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit
