"""The client file: what a client is, its limits, its projects and their contracts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import rfc8785
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError

from gateway.clients.limits import Limits
from gateway.errors import Fault, GatewayError
from gateway.onboarding import contracts, databases
from gateway.onboarding.offer import LEAST, Offer
from gateway.onboarding.quantities import Retention, SizeBytes

CLIENT_NAME = r"^[a-z][a-z0-9-]{1,30}$"
PROJECT_NAME = r"^[a-z][a-z0-9_-]{1,62}$"
_DEFAULTS = Limits()
# Strict: a `yes` must not silently be one.
FilesPerBatch = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
OpenBatches = Annotated[int, Field(ge=1, le=100_000, strict=True)]
UploadsInFlight = Annotated[int, Field(ge=1, le=10_000, strict=True)]
RequestsPerSecond = Annotated[int, Field(ge=1, le=100_000, strict=True)]


class SpecError(GatewayError):
    """The client file asks for something impossible; ``errors`` says where."""

    slug = "invalid-request"
    status = 422
    title = "The client file is not valid"


def _canonical(contract: dict[str, Any]) -> dict[str, Any]:
    try:
        rfc8785.dumps(contract)
    except (ValueError, RecursionError):
        message = "has a value that JSON cannot carry, such as NaN or an integer beyond 2^53 - 1"
        raise ValueError(message) from None
    return contract


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LimitsSpec(_Section):
    """Limits of a client; sizes in bytes or as ``50GiB``."""

    file_bytes: SizeBytes = _DEFAULTS.file_bytes
    batch_bytes: SizeBytes = _DEFAULTS.batch_bytes
    files_per_batch: FilesPerBatch = _DEFAULTS.files_per_batch
    open_batches: OpenBatches = _DEFAULTS.open_batches
    uploads_in_flight: UploadsInFlight = _DEFAULTS.uploads_in_flight
    requests_per_second: RequestsPerSecond = _DEFAULTS.requests_per_second
    bytes_per_day: SizeBytes | None = _DEFAULTS.bytes_per_day


class ProjectLimitsSpec(_Section):
    """Limits of a project where they are narrower than its client's."""

    file_bytes: SizeBytes | None = None
    batch_bytes: SizeBytes | None = None
    files_per_batch: FilesPerBatch | None = None
    open_batches: OpenBatches | None = None
    uploads_in_flight: UploadsInFlight | None = None
    bytes_per_day: SizeBytes | None = None

    def given(self) -> dict[str, int]:
        """Return those that are there."""
        return self.model_dump(exclude_none=True)


class OnReject(_Section):
    """What happens to a delivery with rejected rows, and how many are tolerated."""

    policy: Literal["reject-rows", "reject-file", "fail-batch"] = "reject-rows"
    max_rows: int | None = Field(None, ge=0, le=2**53 - 1)
    max_percent: float | None = Field(None, ge=0, le=100)


class RetentionSpec(_Section):
    """How long each layer is kept: hours (``12h``), days (``90d``) or ``forever``."""

    landing: Retention = "90d"
    staged: Retention = "30d"
    curated: Retention = "forever"


class ProjectSpec(_Section):
    """One feed of the client."""

    # Its digest is taken over its RFC 8785 form, so it must have one.
    contract: Annotated[dict[str, Any], AfterValidator(_canonical)]
    on_reject: OnReject = OnReject()
    retention: RetentionSpec = RetentionSpec()
    engine: Literal["local", "spark"] = "local"
    # Into curated tables in any case; with ``postgres`` into the client's own database as well.
    load: dict[Literal["postgres"], StrictBool] = {}
    limits: ProjectLimitsSpec = ProjectLimitsSpec()


class ClientSpec(_Section):
    """A whole client."""

    client: str = Field(pattern=CLIENT_NAME)
    name: str = Field(min_length=1, max_length=200)
    limits: LimitsSpec = LimitsSpec()
    projects: dict[str, ProjectSpec] = Field(min_length=1, max_length=500)


def parse(document: Any, offer: Offer = LEAST) -> ClientSpec:
    """Check a client file's content, contracts inline.

    Parameters
    ----------
    offer
        What this platform can do for projects.

    Raises
    ------
    SpecError
        Each fault's pointer is the path to the value, for example ``projects/flights/engine``.
    """
    faults = []
    try:
        spec = ClientSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(errors=contracts.of_validation(error)) from None
    for name, project in spec.projects.items():
        if not re.fullmatch(PROJECT_NAME, name):
            faults.append(Fault(f"projects/{name}", "a project's name is a-z, 0-9, - and _"))
        prefix = f"projects/{name}/contract/"
        wrong = contracts.faults(project.contract)
        faults += [Fault(prefix + each.pointer, each.detail, each.code) for each in wrong]
        if project.load.get("postgres") and not wrong:
            faults += databases.faults(name, project.contract, has_databases=offer.databases)
        faults += _wider(spec.limits, name, project.limits)
        if project.engine not in offer.engines:
            detail = f"this platform has no {project.engine}"
            faults.append(Fault(f"projects/{name}/engine", detail))
    if faults:
        raise SpecError(errors=faults)
    return spec


def _wider(held: LimitsSpec, name: str, own: ProjectLimitsSpec) -> Iterator[Fault]:
    """Yield the limits of a project that are above its client's."""
    for limit, value in own.given().items():
        most = getattr(held, limit)
        if most is not None and value > most:
            detail = f"{value} is more than the client's own {limit}, {most}"
            yield Fault(f"projects/{name}/limits/{limit}", detail, "above-the-client")


def read(path: Path, offer: Offer = LEAST) -> ClientSpec:
    """Read a client file and the contracts it names, which lie relative to it.

    Parameters
    ----------
    offer
        As `parse`.

    Raises
    ------
    SpecError
        Each fault's pointer is ``<file>:<line>``.
    """
    source = _Source(path)
    origins: dict[tuple[str, ...], _Source] = {(): source}
    document = source.value
    projects = document.get("projects") if isinstance(document, dict) else None
    for name, project in (projects if isinstance(projects, dict) else {}).items():
        contract = project.get("contract") if isinstance(project, dict) else None
        if isinstance(contract, str):
            where = ("projects", str(name), "contract")
            origins[where] = _Source(path.parent / contract, source.place(where))
            project["contract"] = origins[where].value
    try:
        return parse(document, offer)
    except SpecError as error:
        faults = [_placed(origins, fault) for fault in error.errors]
        raise SpecError(errors=faults) from None


class _Source:
    """A YAML file: its value, and the line of each of its parts."""

    def __init__(self, path: Path, named_at: str = "") -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            self.value = yaml.safe_load(text)
            self.root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError):
            place = named_at or str(path)
            raise SpecError(errors=[Fault(place, f"{path.name} cannot be read")]) from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            fault = Fault(f"{path}:{line}", error.problem or "not YAML")
            raise SpecError(errors=[fault]) from None

    def place(self, where: tuple[str, ...]) -> str:
        """Return ``<file>:<line>`` of the deepest part of ``where`` that is there."""
        node, line = self.root, 1
        for part in where:
            found = _child(node, part)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line + 1
        return f"{self.path}:{line}"


def _child(node: Any, part: str) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key, value
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        item = node.value[int(part)]
        return item, item
    return None


def _placed(origins: dict[tuple[str, ...], _Source], fault: Fault) -> Fault:
    where = tuple(fault.pointer.split("/"))
    nearest = max((each for each in origins if where[: len(each)] == each), key=len)
    place = origins[nearest].place(where[len(nearest) :])
    return Fault(place, f"{'.'.join(where)}: {fault.detail}", fault.code)
