"""Between Python values and the bytes that Redis holds.

A job travels as an *envelope*: a msgpack array of a schema number, the job's name, its data (encoded on its own, so
that it can be decoded later, as the processor's type) and its options, as far as any were given. The scripts never
look inside.

What goes in comes out exactly, or is refused: plain data is decoded again at once and compared, since msgpack would
quietly turn a tuple into a list or a Decimal into text. Whole numbers beyond 64 bits travel as an extension.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from streamq.errors import PayloadTooLarge, UnencodableData
from streamq.job import JobError, JobOptions
from streamq.policy import Backoff, Retention

SCHEMA = 1
READABLE = (1,)
"""The schema numbers that this version reads: its own and the one before."""

WEBHOOK = "streamq-webhook"
"""The name of the jobs that tell webhooks of other jobs' ends."""
_BIG_INT = 1


class EnvelopeOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """The options that outlive `add`; short names, as every waiting job carries them."""

    a: int | None = None
    b: Backoff | None = None
    t: float | None = None
    c: Retention | None = None
    f: Retention | None = None
    x: float | None = None
    g: tuple[str, ...] = ()
    h: dict[str, str] | None = None
    k: str | None = None


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A job as it lies in a lane."""

    schema: int
    name: str
    data: msgspec.Raw
    options: EnvelopeOptions | None = None


class PlainEnvelope(msgspec.Struct, frozen=True, array_like=True):
    """An envelope without options: one byte less."""

    schema: int
    name: str
    data: msgspec.Raw


class BadEnvelope(ValueError):
    """Bytes that are no envelope of a schema that this version reads."""


def _ext(code: int, data: memoryview) -> Any:
    if code == _BIG_INT:
        return int.from_bytes(data, "big", signed=True)
    raise ValueError(f"unknown msgpack extension {code}")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ext_hook=_ext)
_envelopes = msgspec.msgpack.Decoder(Envelope)
_errors = msgspec.msgpack.Decoder(JobError)


def _pack_big_ints(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pack_big_ints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_pack_big_ints(v) for v in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    return value


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except OverflowError:
        return _encoder.encode(_pack_big_ints(value))


def encode_data(what: str, value: Any, limit: int) -> bytes:
    """Encode `value` so that it comes back exactly as it is; an aware datetime as the same moment in UTC.

    Raises:
        UnencodableData: It would not; the message says why.
        PayloadTooLarge: Its encoding is over `limit` bytes.
    """
    try:
        body = _encode(value)
        kind = type(value)
        if kind is not dict and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)):
            exact = msgspec.msgpack.decode(body, type=kind, ext_hook=_ext) == value
        else:
            exact = value == _decoder.decode(body)
    except RecursionError:
        raise UnencodableData(f"{what} can't be encoded: it contains itself or is nested too deeply") from None
    except Exception as error:
        raise UnencodableData(f"{what} can't be encoded: {error}") from None
    if len(body) > limit:
        raise PayloadTooLarge(what, len(body), limit)
    if not exact:
        raise UnencodableData(
            f"{what} would not come back as it was given: use dicts, lists, text, bytes, numbers, booleans and None "
            f"(no tuples, sets, Decimals, NaN), or a msgspec struct or dataclass; this is a {kind.__name__}"
        )
    return body


def encode_result(value: Any, limit: int) -> bytes:
    """Encode what a handler returned. None takes no bytes; tuples come back as lists, Decimals as text.

    Raises:
        UnencodableData, PayloadTooLarge: It can't be stored.
    """
    if value is None:
        return b""
    try:
        body = _encode(value)
        _decoder.decode(body)
    except RecursionError:
        raise UnencodableData("the result can't be encoded: it contains itself or is nested too deeply") from None
    except Exception as error:
        raise UnencodableData(f"the result can't be encoded: {error}") from None
    if len(body) > limit:
        raise PayloadTooLarge("the result", len(body), limit)
    return body


def decode(body: bytes) -> Any:
    """Decode data, a result or a progress value; empty is None."""
    return _decoder.decode(body) if body else None


def typed_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder for a processor's data type."""
    return msgspec.msgpack.Decoder(kind, ext_hook=_ext)


def encode_envelope(name: str, data: bytes, options: EnvelopeOptions | None) -> bytes:
    """Encode a job; `data` is encoded already."""
    raw = msgspec.Raw(data)
    if options is None:
        return _encoder.encode(PlainEnvelope(SCHEMA, name, raw))
    return _encoder.encode(Envelope(SCHEMA, name, raw, options))


def decode_envelope(body: bytes) -> Envelope:
    """Decode a job, its data not yet.

    Raises:
        BadEnvelope: These bytes are none, or of a schema that this version can't read.
    """
    try:
        envelope = _envelopes.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadEnvelope(f"not a job: {error}") from None
    if envelope.schema not in READABLE:
        raise BadEnvelope(f"schema {envelope.schema} is not one that this version reads {READABLE}")
    return envelope


def encode_text(text: str) -> bytes:
    """Return a job's name or an error's type as it is encoded inside; the scripts compare such bytes."""
    return _encoder.encode(text)


def matches(envelope: bytes, name: bytes, error: bytes, kind: bytes) -> bool:
    """Whether a job has this name and its error this type, both from `encode_text`; empty ones match all.

    Mirrors `lua/lib/match.lua`: a name comes after the array's head and the schema number, a type after the head.
    """
    return envelope.startswith(name, 2) and error.startswith(kind, 1)


def envelope_options(options: JobOptions) -> EnvelopeOptions | None:
    """Return what of `options` travels with the job; None if nothing does."""
    found = EnvelopeOptions(
        options.attempts, options.backoff, options.timeout_seconds, options.keep_completed, options.keep_failed,
        options.expires_seconds, tuple(options.tags), dict(options.headers) if options.headers else None, options.key,
    )  # fmt: skip
    return None if found == _NO_OPTIONS else found


_NO_OPTIONS = EnvelopeOptions()


def bonds(options: JobOptions) -> dict[str, Any]:
    """Return what binds the job to others, as `lua/lib/enqueue.lua` takes it; mostly nothing."""
    found: dict[str, Any] = {}
    if options.unique is not None:
        found["u"] = options.unique.bond()
    if options.key is not None:
        found["k"] = options.key
    if options.webhook is not None:
        found["w"] = options.webhook
    return found


def encode_error(error: JobError) -> bytes:
    """Encode how an attempt failed."""
    return _encoder.encode(error)


def decode_error(body: bytes) -> JobError:
    """Decode how an attempt failed; bytes that say nothing readable become an error that says so."""
    try:
        return _errors.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return JobError("UnreadableError", "the stored error can't be decoded")
