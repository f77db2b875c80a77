"""The settings of every process of the service, from environment variables named BONSAI_*."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, quote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.crashes import CrashLimits
from jobs.fairness import Fairness
from jobs.retention import Retention

Network = IPv4Network | IPv6Network


def _listed(value: object) -> object:
    """Items of a list in an environment variable, with commas between."""
    if not isinstance(value, str):
        return value
    return [item.strip() for item in value.split(",") if item.strip()]


class Settings(BaseSettings):
    """One frozen settings object, made at the start of a process and handed on."""

    model_config = SettingsConfigDict(
        env_prefix="BONSAI_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    database_url: str = "postgresql+psycopg://bonsai@localhost/bonsai"
    """SQLAlchemy URL of PostgreSQL >= 15, driver psycopg."""

    redis_url: str = "redis://localhost:6379/0"
    """URL of a server that speaks the Redis protocol (>= 7): redis://, rediss:// or unix://."""

    data_dir: Path = Path(".bonsai")
    """Folder of the workers' scratch files and, without `artifacts_url`, of artifacts; then it is
    shared by API and workers."""

    artifacts_url: Annotated[
        str | None, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.-]+)*$")
    ] = None
    """`s3://bucket/prefix` of artifacts; none: a folder in `data_dir`. Endpoint, region and
    credentials come from the variables that AWS's own tools read (AWS_ENDPOINT_URL and so on)."""

    artifacts_patience_seconds: Annotated[float, Field(ge=0.1, le=290)] = 180.0
    """For how long a job tries each request again to a store at `artifacts_url` that is away or
    fails; then it is held back."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where workers run models; `auto` takes CUDA when it is there."""

    device_memory: Annotated[int | None, Field(ge=1)] = None
    """Bytes of its device that a worker's jobs may take; none: all that nobody else holds."""

    worker_name: Annotated[str, Field(max_length=200, pattern=r"^[^/]*$")] = ""
    """Name of this worker in attempts and logs; empty: host name and process id."""

    child_module: str = "worker.child"
    """What a worker starts for an attempt; another module of the same protocol, for drills."""

    lease_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 30.0
    """A worker that is silent for longer has lost its job."""

    heartbeat_seconds: Annotated[float, Field(ge=0.1, le=600)] = 5.0
    """How often a worker renews its lease and looks for wishes; well under the lease. After three
    times as long without a word it is listed as lost."""

    sweep_seconds: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    """How often a worker takes back expired leases, and looks for jobs without a bell."""

    stop_grace_seconds: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    """How long a child process may take to stop before it is killed with its group."""

    crashes_allowed: Annotated[int, Field(ge=1, le=100)] = 3
    """Crashes in a row without a newly evaluated mask after which a job fails."""

    backoff_seconds: Annotated[float, Field(ge=0)] = 10.0
    """How long a job waits after its first crash; twice as long after each further one in a row."""

    stall_seconds: Annotated[float, Field(ge=0.1)] = 600.0
    """A child that has made no forward pass for so long, and for 20 times its longest pause, hangs;
    ten times as long is borne while it loads the model."""

    hold_seconds: Annotated[float, Field(ge=0.1)] = 60.0
    """How long a job waits that found no room on the disk before it tries again, and a worker whose
    device has failed."""

    ageing_seconds: Annotated[float, Field(ge=1)] = 43_200.0
    """Waiting so long lifts a queued job by one level of priority."""

    half_life_seconds: Annotated[float, Field(ge=1)] = 86_400.0
    """After so long, half of what an owner has used of the devices is forgotten."""

    running_per_owner: Annotated[int | None, Field(ge=1)] = None
    """Jobs of one owner that may run at once; none: as many as there are workers."""

    queued_per_owner: Annotated[int | None, Field(ge=1)] = None
    """Jobs of one owner that may wait; none: any number."""

    disk_per_owner: Annotated[int | None, Field(ge=1)] = None
    """Bytes that the files of one owner's jobs may take before no more of them are accepted; none:
    any number."""

    largest_dataset: Annotated[int, Field(ge=1)] = 2**30
    """Bytes of an uploaded text; a longer one is refused."""

    keep_days: Annotated[float | None, Field(gt=0)] = None
    """Files and ledger of a job expire so long after its end, unless it is pinned; none: never."""

    keep_per_owner: Annotated[int | None, Field(ge=0)] = None
    """Of each owner, those of so many of the jobs that ended last are kept; none: all."""

    expiry_notice_hours: Annotated[float, Field(ge=0)] = 24.0
    """How long before its end an expiry is announced by an event."""

    webhook_networks: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Networks that webhooks may reach beyond the internet, and by plain http: CIDR blocks with
    commas between. Whoever may create a webhook may have the API send a POST to any address in
    them. Where names resolve to NAT64's addresses, 64:ff9b::/96 belongs here."""

    webhook_timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = 20.0
    """How long a receiver may take from the first byte sent to the end of its answer."""

    keep_deliveries_days: Annotated[float, Field(ge=5)] = 30.0
    """The log of what was sent to webhooks goes back so far; tries go on for three of them."""

    mlflow_tracking_uri: str | None = None
    """MLflow server that workers tell of finished models, as MLflow spells it; none: nobody is
    told. Its credentials are MLflow's own variables."""

    mlflow_experiment: Annotated[str, Field(min_length=1)] = "bonsai"
    """Experiment of the runs that it gets."""

    mlflow_source: str | None = None
    """URI at which those who ask the registry find the artifacts' folder; none: that of
    `artifacts_dir`. MLflow servers take no `file:` from others, but `s3:` and `https:`."""

    allow_remote: bool = False
    """Whether the API answers peers that are not on this machine. It then needs keys, and starts
    only where there is one and `source_folders` are set; put TLS before it."""

    admin_key: SecretStr | None = None
    """A key that is always an admin's, from `bonsai keys generate`. Without it and without any
    other key, the API lets every peer on this machine do everything."""

    requests_per_minute: Annotated[int | None, Field(ge=1)] = None
    """Requests with one key, or from one peer without a key, within any minute; none: any
    number."""

    source_folders: Annotated[tuple[Path, ...] | None, NoDecode] = None
    """Folders that models and texts may lie in or below, absolute, separated by commas; none: any
    folder, where `allow_remote` is not set. For the API and all workers alike."""

    hub_repositories: Annotated[tuple[str, ...], NoDecode] = ("*",)
    """Patterns of hub ids that models and data sets may have, such as `meta-llama/*`, separated by
    commas; empty: none. For the API and all workers alike."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe message that is logged."""

    log_format: Literal["json", "text"] = "json"
    """`json`: one object per line. `text`: for eyes."""

    @field_validator("source_folders", "hub_repositories", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("source_folders")
    @classmethod
    def _absolute(cls, value: tuple[Path, ...] | None) -> tuple[Path, ...] | None:
        for folder in value or ():
            if not folder.is_absolute():
                raise ValueError(f"{str(folder)!r} must be an absolute path")
        return value

    @property
    def crash_limits(self) -> CrashLimits:
        """What is borne of a job whose process crashes."""
        return CrashLimits(self.crashes_allowed, self.backoff_seconds)

    @property
    def fairness(self) -> Fairness:
        """How the devices are shared out."""
        return Fairness(
            self.ageing_seconds,
            self.half_life_seconds,
            self.running_per_owner,
            self.queued_per_owner,
            self.disk_per_owner,
        )

    @property
    def retention(self) -> Retention:
        """How long files are kept."""
        return Retention(self.keep_days, self.keep_per_owner, self.expiry_notice_hours)

    @property
    def broker_url(self) -> str:
        """`redis_url` in Celery's spelling, which differs for unix sockets."""
        parts = urlsplit(self.redis_url)
        if parts.scheme != "unix":
            return self.redis_url
        number = parse_qs(parts.query).get("db", ["0"])[0]
        return f"redis+socket://{quote(parts.path, safe='/%')}?virtual_host={number}"

    @property
    def artifacts_dir(self) -> Path:
        """Folder of published and working files of jobs, where there is no `artifacts_url`."""
        return self.data_dir / "artifacts"

    @property
    def artifacts_uri(self) -> str:
        """Where published files are, for a model registry."""
        return self.mlflow_source or self.artifacts_url or self.artifacts_dir.resolve().as_uri()

    @property
    def scratch_dir(self) -> Path:
        """Folder of files that may be lost at any time."""
        return self.data_dir / "scratch"
