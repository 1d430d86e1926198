"""Every exception that Octavo raises on purpose.

    OctavoError
    |-- ConfigError              a flag or setting is wrong                        exit code 2
    |-- ModelLoadError           a model cannot be loaded: file, tensor, reason    exit code 2
    |   |-- ModelNotFoundError   no such folder, file or hub id
    |   |-- CheckpointError      a file is damaged, or a tensor is missing or has the wrong shape
    |   `-- UnsupportedModelError  a family, variant or number format that Octavo does not run
    |-- RequestError             one request is wrong; names the field             HTTP 400
    |   `-- ContextLengthError   it could never fit: carries the numbers
    |-- UnknownModelError        the request names a model that is not served      HTTP 404
    |-- OverloadedError          no room just now; says when to come back          HTTP 429
    |-- DeadlineExceededError    the request's own time was over before it ended   HTTP 504
    |-- RequestFailedError       this request broke while it ran                   HTTP 500
    `-- EngineUnavailableError   the engine is starting, draining, hung or dead    HTTP 503

Each message is one line for a person: what was wrong, where, and what to do about it.
"""


class OctavoError(Exception):
    """The root: catch this to catch everything that Octavo raises on purpose."""


class ConfigError(OctavoError):
    """A flag or setting is wrong, or would have no effect."""


class ModelLoadError(OctavoError):
    """A model cannot be loaded."""


class ModelNotFoundError(ModelLoadError):
    """The name is no folder, no file and no reachable hub id."""


class CheckpointError(ModelLoadError):
    """A checkpoint file is damaged or incomplete.

    Attributes:
        path: the file at fault.
        tensor: the tensor at fault, or None where the file as a whole is wrong.
    """

    def __init__(self, path: object, reason: str, *, tensor: str | None = None) -> None:
        self.path = str(path)
        self.tensor = tensor
        where = f"{path}: tensor {tensor!r}" if tensor is not None else f"{path}"
        super().__init__(f"{where}: {reason}")


class UnsupportedModelError(ModelLoadError):
    """The model is intact, but Octavo does not run this family or variant."""


class RequestError(OctavoError, ValueError):
    """One request is wrong.

    Attributes:
        param: the request's field at fault, in the client's spelling, or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class ContextLengthError(RequestError):
    """The request could never fit: longer than the context, or than the whole KV cache."""


class UnknownModelError(OctavoError):
    """The request names a model that this server does not serve."""


class OverloadedError(OctavoError):
    """The queue is full, or a request has waited in it for too long.

    Attributes:
        retry_after_seconds: when the client should try again.
    """

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class DeadlineExceededError(OctavoError):
    """The deadline that a request came with passed before it ended; what it had is given up."""


class RequestFailedError(OctavoError):
    """A request that had been accepted broke while it ran; others were not disturbed."""


class EngineUnavailableError(OctavoError):
    """The engine cannot take or finish requests: starting, draining, hung or dead."""
