"""
Settings of one trigger: which changes, in what shape, in which batches, and what becomes of failures.

The names are those of a Lambda event source mapping (ESM), with ESM's meaning, for Lambda and HTTP alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from bridge.config.reshaping import ColumnSettings, MaskRule, check_mask_key
from bridge.config.section import NOT_BOOL, Name, Section, is_list
from bridge.config.targets import LAMBDA_EVENT_BYTES, LAMBDA_REQUEST_BYTES, TargetSettings
from bridge.errors import ConfigError
from bridge.secret import Secret
from bridge.triggers.filter import Pattern, PatternError, compile_patterns
from bridge.triggers.forms import FORMS
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Mask, Shape
from bridge.triggers.tables import PatternSyntaxError, TableSelection

Operation = Literal["insert", "update", "delete", "truncate", "message"]


class BacklogSettings(Section):
    """When a trigger's waiting changes move to the backlog table, so that the slot can go on without them."""

    after_bytes: Annotated[int, Field(ge=1_048_576), NOT_BOOL] = 67_108_864
    """Bytes held in memory for the trigger. Default 64 MiB: half of the process's budget."""
    after_wal_bytes: Annotated[int, Field(ge=16_777_216), NOT_BOOL] = 268_435_456
    """Bytes of WAL that the slot retains because of the trigger. Default 256 MiB: sixteen segments."""
    after_seconds: Annotated[float, Field(ge=0), NOT_BOOL] = 60.0
    """Seconds that the oldest waiting change has been waiting. Default 60: longer than a deployment's hiccup."""


class OnFailureSettings(Section):
    """Where a dead letter is sent besides the table."""

    destination: Annotated[str, Field(pattern=r"^arn:aws[a-zA-Z-]*:(sqs|sns|s3):[^\s]+$")]
    """ARN of an SQS queue, an SNS topic or an S3 bucket."""
    type: Literal["SQS", "SNS", "S3"] | None = None
    """Kind of the destination, as SAM templates name it; told from the ARN where absent."""

    @model_validator(mode="after")
    def _same_kind(self) -> OnFailureSettings:
        kind = self.destination.split(":")[2].upper()
        if self.type is not None and self.type != kind:
            raise ValueError(f"type is {self.type} and destination is the ARN of something of {kind}; correct one")
        return self


class CircuitBreakerSettings(Section):
    """When a target counts as down for everyone, so that no record is charged for it."""

    failure_rate: Annotated[float, Field(gt=0, le=1), NOT_BOOL] = 0.9
    """Share of failed invocations within the window that opens the circuit. Default 0.9: nearly all."""
    minimum_invocations: Annotated[int, Field(ge=1, le=10_000), NOT_BOOL] = 20
    """Invocations within the window below which nothing is concluded. Default 20."""
    window_in_seconds: Annotated[float, Field(gt=0, le=3600), NOT_BOOL] = 60.0
    """Seconds that are looked back. Default 60."""


class ClaimCheckSettings(Section):
    """Where an event goes that is too large for its target; the target gets a pointer to it."""

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    """S3 bucket."""
    prefix: str = "pgbridge/"
    """What object names begin with."""


def _patterns(value: Any) -> Any:
    """A list of patterns, objects or JSON text, or ESM's `{Filters: [{Pattern: '…'}]}`."""
    if isinstance(value, Mapping):
        filters = value.get("Filters", value.get("filters"))
        if len(value) != 1 or not is_list(filters):
            raise ValueError("it must be a list of patterns, or {Filters: [{Pattern: '…'}]}")
        value = []
        for index, item in enumerate(filters):
            pattern = item.get("Pattern", item.get("pattern")) if isinstance(item, Mapping) and len(item) == 1 else None
            if pattern is None:
                raise ValueError(f"Filters[{index}] must be {{Pattern: '…'}} and nothing else")
            value.append(pattern)
    if not is_list(value):
        raise ValueError("it must be a list of patterns, such as [{record: {plan: [pro]}}]")
    return tuple(_pattern(index, item) for index, item in enumerate(value))


def _pattern(index: int, item: Any) -> Any:
    """A pattern as it was written: JSON text stays text, in which no digit and no doubled key is lost."""
    if isinstance(item, str):
        try:
            json.loads(item)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise ValueError(f"the pattern [{index}] is not JSON ({where}); write it as an object or as JSON") from None
        if not item.lstrip().startswith("{"):
            item = None
    if not isinstance(item, str | Mapping):
        raise ValueError(f"the pattern [{index}] must be an object, such as {{record: {{plan: [pro]}}}}")  # noqa: TRY004
    return item


def _order_by(value: Any) -> Any:
    if isinstance(value, str):
        if value in ("primary_key", "table", "none"):
            return value
        raise ValueError(
            f"it must be primary_key, table, none, or a list of columns; write [{value}] if it is a column"
        )
    if is_list(value) and value and all(isinstance(name, str) and name for name in value):
        if len(set(value)) != len(value):
            raise ValueError("it names a column twice")
        return tuple(value)
    raise ValueError("it must be primary_key, table, none, or a list of columns")


_PATTERN_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {
            "type": "array",
            "items": {"anyOf": [{"type": "object"}, {"type": "string", "contentMediaType": "application/json"}]},
        },
        {
            "type": "object",
            "properties": {
                "Filters": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"Pattern": {"type": "string", "contentMediaType": "application/json"}},
                        "required": ["Pattern"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["Filters"],
            "additionalProperties": False,
        },
    ]
}
_ORDER_BY_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"enum": ["primary_key", "table", "none"]},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True},
    ]
}


class TriggerSettings(Section):
    """A rule: which changes go where, and how."""

    enabled: bool = True
    """Whether the trigger runs. A disabled one receives nothing, and nothing waits for it."""
    operations: tuple[Operation, ...] = ("insert", "update", "delete")
    """
    insert, update, delete, truncate; message for logical messages. Default: the three that change rows; the others have
    no row, and a handler must be written for them.
    """
    tables: Annotated[tuple[str, ...], Field(validate_default=True)] = ()
    """
    Tables as schema.table, with * and ? as globs; !schema.table takes away. Names are exact, without folding to lower
    case; a name with a dot stands in double quotes.
    """
    filter_criteria: Annotated[
        tuple[str | Mapping[str, Any], ...], BeforeValidator(_patterns), WithJsonSchema(_PATTERN_SCHEMA)
    ] = ()
    """EventBridge patterns over the event; an event passes if one of them matches. Default: every event passes."""
    changed: tuple[Name, ...] = ()
    """Updates only where one of these columns changed. Default: any update."""
    columns: ColumnSettings = ColumnSettings()
    """Which columns stand in the event. Default: all."""
    mask: Mapping[Name, MaskRule] = Field(default_factory=dict)
    """
    Columns whose values are covered, by their names in the table: redact, {hash: KEY} or {truncate: LENGTH}. Wherever a
    value would stand: in `record`, `changes` and the keys.
    """
    static: Mapping[Name, Any] = Field(default_factory=dict)
    """Members that are added to every record, with any JSON value."""
    transform: Annotated[str | None, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = None
    """Python function that takes an event and returns one or None, as module:function."""
    target: TargetSettings
    """What is called."""
    batch_size: Annotated[int, Field(ge=1, le=10_000), NOT_BOOL] = 100
    """Most events in one invocation. Default 100, as ESM's for streams."""
    maximum_batching_window_in_seconds: Annotated[float, Field(ge=0, le=300), NOT_BOOL] = 0.0
    """
    Seconds to wait for a batch to fill. Default 0: a batch leaves as soon as there is room, so light load travels at
    once and heavy load in large batches.
    """
    maximum_batch_bytes: Annotated[int, Field(ge=1024, le=104_857_600), NOT_BOOL] = 5_500_000
    """
    Most bytes in one invocation's body. Default 5.5 MB, under Lambda's 6 MB; 950 kB with invocation_type Event, whose
    quota is 1 MB.
    """
    parallelization_factor: Annotated[int, Field(ge=1, le=1000), NOT_BOOL] = 10
    """Invocations in flight at once for this trigger. Default 10, ESM's most for one shard."""
    maximum_concurrency: Annotated[int | None, Field(ge=1, le=1000), NOT_BOOL] = None
    """
    Calls at once to the target, whatever makes them: the stream, a backlog, a replay in the console. Default: as many
    as parallelization_factor.
    """
    maximum_invocations_per_second: Annotated[float | None, Field(gt=0, le=10_000), NOT_BOOL] = None
    """Calls begun within a second; a fraction is kept on average. Default: no limit."""
    order_by: Annotated[
        Literal["primary_key", "table", "none"] | tuple[str, ...],
        BeforeValidator(_order_by),
        WithJsonSchema(_ORDER_BY_SCHEMA),
    ] = "primary_key"
    """
    What must stay in order: changes of one primary key, of equal values in the listed columns, of the table, or
    nothing. Default: the primary key: one row's changes arrive as committed, and rows do not wait for each other.
    """
    maximum_retry_attempts: Annotated[int, Field(ge=-1, le=10_000), NOT_BOOL] = 8
    """
    Failed attempts after the first before a change becomes a dead letter; -1 for no limit. Default 8, about half a
    minute of back-off; ESM's own default retries for ever and blocks what comes after.
    """
    maximum_record_age_in_seconds: Annotated[int, Field(ge=-1, le=604_800), NOT_BOOL] = -1
    """Seconds since its commit after which a failing change becomes a dead letter: 60 to 604800, or -1 for no limit."""
    bisect_batch_on_function_error: bool = True
    """Whether a failed batch is halved to find the bad record. Default true: the good ones need not fail with it."""
    function_response_types: tuple[Literal["ReportBatchItemFailures"], ...] = ("ReportBatchItemFailures",)
    """Whether the answer may name failed records in batchItemFailures. Default: yes; without any it is a success."""
    on_schema_change: Literal["propagate", "pause"] = "propagate"
    """
    propagate: changes of an altered table are sent as they are. pause: the trigger stops before the first of them, once
    everything before it is delivered, until somebody resumes it.
    """
    on_failure: OnFailureSettings | None = None
    """Where a dead letter is sent besides the dead-letter table."""
    on_dead_letter: Literal["continue", "hold_key"] = "continue"
    """continue: later changes of that key go on. hold_key: they wait until the letter is replayed or discarded."""
    circuit_breaker: CircuitBreakerSettings = CircuitBreakerSettings()
    """When the target counts as down."""
    loop_guard: Annotated[int | None, Field(ge=10, le=1_000_000), NOT_BOOL] = 200
    """
    Calls in a row, each answered by one new change of the same row while it was under way, that pause the trigger: its
    target then seems to write to what triggers it. null for never. Default 200: more steps than a row is taken through
    on purpose, and a minute's work of a loop.
    """
    claim_check: ClaimCheckSettings | None = None
    """Where an event too large for the target goes. Default: the dead letters."""
    backlog: BacklogSettings | None = None
    """As the section of the same name, for this trigger alone."""
    starting_position: Literal["LATEST", "TRIM_HORIZON"] | None = None
    """Taken so that a pasted template loads. Either begins where the slot stands: nothing older is kept."""

    @model_validator(mode="before")
    @classmethod
    def _esm_forms(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        scaling = data.pop("ScalingConfig", None)
        if scaling is not None:
            if not isinstance(scaling, Mapping) or set(scaling) != {"MaximumConcurrency"}:
                raise ValueError("ScalingConfig must be {MaximumConcurrency: number}")
            if "maximum_concurrency" in data or "MaximumConcurrency" in data:
                raise ValueError("maximum_concurrency and ScalingConfig are one setting; keep one of them")
            data["maximum_concurrency"] = scaling["MaximumConcurrency"]
        spellings = [key for key in ("DestinationConfig", "destination_config") if key in data]
        for key in spellings:
            config = data.pop(key)
            inner = config.get("OnFailure", config.get("on_failure")) if isinstance(config, Mapping) else None
            if inner is None or len(config) != 1:
                raise ValueError(f"{key} must be {{OnFailure: {{Destination: ARN}}}}")
            if "on_failure" in data or "OnFailure" in data:
                raise ValueError(f"on_failure and {key} are one setting; keep one of them")
            data["on_failure"] = inner
        return data

    @field_validator("operations", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        if not is_list(value):
            return value
        if not value:
            raise ValueError("it is empty")
        return tuple(dict.fromkeys(item.lower() if isinstance(item, str) else item for item in value))

    @field_validator("tables")
    @classmethod
    def _are_patterns(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        try:
            selection = TableSelection.parse(value)
        except PatternSyntaxError as error:
            raise ValueError(str(error)) from error
        if all(pattern.excludes for pattern in selection.patterns) and info.data.get("operations") != ("message",):
            raise ValueError("it must name at least one table, such as [public.users] or [shop.*]")
        return value

    @field_validator("filter_criteria")
    @classmethod
    def _compile(cls, value: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
        if value:
            check_patterns(value)
        return value

    @field_validator("static")
    @classmethod
    def _is_json(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            orjson.dumps(dict(value))
        except TypeError:
            raise ValueError("it holds something that JSON has not, such as a number beyond 64 bits") from None
        return value

    @field_validator("maximum_record_age_in_seconds")
    @classmethod
    def _age(cls, value: int) -> int:
        if -1 < value < 60:
            raise ValueError("it must be -1 (no limit) or from 60 to 604800 seconds")
        return value

    @field_validator("backlog", "circuit_breaker", "columns", mode="before")
    @classmethod
    def _null_is_default(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name != "backlog":
            return {}
        return value

    @model_validator(mode="after")
    def _fits_the_target(self) -> TriggerSettings:
        target = self.target.lambda_
        if target is None:
            return self
        quota = LAMBDA_EVENT_BYTES if target.invocation_type == "Event" else LAMBDA_REQUEST_BYTES
        if self.maximum_batch_bytes > quota:
            if "maximum_batch_bytes" in self.model_fields_set:
                raise ValueError(
                    f"maximum_batch_bytes is {self.maximum_batch_bytes}, and Lambda takes at most {quota} bytes "
                    f"with invocation_type {target.invocation_type}"
                )
            # The default depends on the target; set past `frozen` while the object is still being made.
            object.__setattr__(self, "maximum_batch_bytes", 950_000)
        return self

    @model_validator(mode="after")
    def _fits_the_envelope(self) -> TriggerSettings:
        name = self.target.envelope
        known = FORMS[name].operations if name in FORMS else None
        beyond = [operation for operation in self.operations if known is not None and operation not in known]
        if beyond:
            raise ValueError(f"operations has {beyond[0]}, which the envelope {name} has no form for; leave it out")
        if self.claim_check is not None and (name != "pgbridge" or self.transform is not None):
            raise ValueError("claim_check points from pgbridge's own event; remove it, or envelope and transform")
        return self

    @property
    def table_selection(self) -> TableSelection:
        """`tables`, parsed."""
        return TableSelection.parse(self.tables)

    @property
    def selection(self) -> Selection | None:
        """The filter; None where every change of the tables is taken."""
        if not self.filter_criteria and not self.changed:
            return None
        matcher = compile_patterns(list(self.filter_criteria)) if self.filter_criteria else None
        return Selection(matcher, frozenset(self.changed))

    @property
    def mask_keys(self) -> tuple[Secret, ...]:
        """The keys that masks hash with."""
        return tuple(rule.hash for rule in self.mask.values() if not isinstance(rule, str) and rule.hash is not None)

    def shape(self, keys: Mapping[Secret, str] = MappingProxyType({})) -> Shape:
        """
        Which columns stand in the event, how they are covered, and what orders it.

        Args:
            keys: the text of `mask_keys` that are kept elsewhere.

        Raises:
            ConfigError: a key is too short.
        """
        include = self.columns.include
        return Shape(
            include=None if include is None else frozenset(include),
            exclude=frozenset(self.columns.exclude),
            order_by=self.order_by,
            rename=tuple(self.columns.rename.items()),
            masks=tuple((column, _mask(column, rule, keys)) for column, rule in self.mask.items()),
            static=tuple((name, orjson.dumps(value)) for name, value in self.static.items()),
        )


def _mask(column: str, rule: MaskRule, keys: Mapping[Secret, str]) -> Mask:
    if isinstance(rule, str):
        return Mask()
    if rule.hash is None:
        return Mask(length=rule.truncate)
    key = rule.hash.literal if rule.hash.literal is not None else keys[rule.hash]
    try:
        check_mask_key(key)
    except ValueError as error:
        raise ConfigError(f"mask.{column}: {error}") from None
    return Mask(key=key.encode())


def check_patterns(patterns: Iterable[Pattern]) -> None:
    """
    Compile filter patterns and throw the result away.

    Raises:
        ValueError: a pattern is not valid; says where in it and why.
    """
    try:
        matcher = compile_patterns(list(patterns))
    except PatternError as error:
        raise ValueError(str(error)) from error
    if any(path[:2] == ("metadata", "idempotency_key") for path in matcher.paths):
        raise ValueError("metadata.idempotency_key is made when an event is sent, after it was chosen; ask for its id")
