"""What can go wrong for a client: each message can be shown to a person as it is."""

from client.responses import Artifact, Problem

_NOT_AUTHENTICATED = 401
_ABOUT_KEYS = (
    "  The key comes from the environment variable BONSAI_API_KEY, from the file of --key-file, "
    "from the profile that names the address (`bonsai profile`), or from BonsaiClient(api_key=...)."
)


class ClientError(Exception):
    """Root of the errors of this package."""


class ServiceError(ClientError):
    """The service has answered with a problem.

    Attributes:
        retry_after_seconds: when to try again, if it has said so.
    """

    def __init__(self, problem: Problem, retry_after_seconds: int | None = None) -> None:
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds
        lines = [problem.detail or problem.title]
        for error in problem.errors:
            line = f"  {error.pointer}: {error.message}"
            if error.value is not None:
                line += f" (got {error.value!r})"
            if error.allowed:
                line += f"; allowed: {error.allowed}"
            lines.append(line)
        if problem.status == _NOT_AUTHENTICATED:
            lines.append(_ABOUT_KEYS)
        super().__init__("\n".join(lines))


class UnreachableServiceError(ClientError):
    """No answer came from the address of the service."""

    def __init__(self, url: str, reason: Exception) -> None:
        self.url = url
        self.reason = reason
        super().__init__(
            f"no answer from {url} ({reason}); start the service with `bonsai up`, or name its "
            "address with --url, BONSAI_URL or a profile (`bonsai profile`)"
        )


class UnexpectedAnswerError(ClientError):
    """Something answered, but not as this service does."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(
            f"the answer of {url} is not this service's ({reason}); is it the address?"
        )


class CorruptedDownloadError(ClientError):
    """A file came over, twice, as something else than the service had promised."""

    def __init__(self, artifact: Artifact, size_bytes: int, sha256: str) -> None:
        self.artifact = artifact
        super().__init__(
            f"{artifact.name}: {size_bytes} bytes with SHA-256 {sha256} were received, but "
            f"{artifact.size_bytes} bytes with {artifact.sha256} were promised; nothing was kept. "
            "Try again; if it stays so, the file is damaged where the service stores it"
        )
