"""Turn a template's name and a context into a subject, a text and an HTML body.

A template is two files, `<name>.txt` (which also holds the block `subject`) and `<name>.html`. Values are escaped in
HTML, and a value that a template needs and the context lacks is an error, never an empty place. The bank's own
templates come first if `STREAMQ_EMAIL_TEMPLATES` names their directory; the built-in ones are the fallback.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jinja2

from streamq.errors import Unrecoverable

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


class BadEmail(Unrecoverable):
    """The request can't become an e-mail. Nothing was sent, and repeating it would not help."""


class Rendered(NamedTuple):
    """What a template gave."""

    subject: str
    text: str
    html: str


def render(name: str, context: Mapping[str, Any], directory: str | None = None) -> Rendered:
    """Render the template `name` with `context`.

    Raises:
        BadEmail: No such template, a value is missing, or a value does not fit its place.
    """
    if not _NAME.match(name):
        raise BadEmail(f"not a template's name: {name[:60]!r}")
    environment = _environment(directory)
    try:
        text = environment.get_template(f"{name}.txt")
        html = environment.get_template(f"{name}.html")
        subject = text.blocks["subject"](text.new_context(dict(context)))
        return Rendered("".join(subject).strip(), text.render(context).strip() + "\n", html.render(context))
    except KeyError as error:
        raise BadEmail(f"template {name!r} has no block {error.args[0]!r}") from None
    except jinja2.TemplateNotFound as error:
        raise BadEmail(f"no template {error.name!r}") from None
    except jinja2.TemplateSyntaxError as error:
        raise BadEmail(f"template {error.name}, line {error.lineno}: {error.message}") from error
    except (jinja2.UndefinedError, ValueError, TypeError) as error:
        raise BadEmail(f"template {name!r}: {error}") from error


@functools.lru_cache(maxsize=8)
def _environment(directory: str | None) -> jinja2.Environment:
    loaders: list[jinja2.BaseLoader] = [jinja2.PackageLoader("streamq.processors", "templates")]
    if directory is not None:
        loaders.insert(0, jinja2.FileSystemLoader(directory))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(money=_money, masked=_masked, web_link=_web_link)
    return environment


def _money(amount: Any, currency: str) -> str:
    """Format an amount for people. A float is refused: it is not an exact amount."""
    if isinstance(amount, jinja2.Undefined):
        str(amount)  # raises, naming the missing value
    if isinstance(amount, (bool, float)) or not isinstance(amount, (str, int, Decimal)):
        raise TypeError(f"an amount must be a decimal as text, not {amount!r}")
    try:
        exact = Decimal(amount)
        if not exact.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise ValueError(f"not an amount: {amount!r}") from None
    return f"{currency} {exact:,}"


def _masked(number: Any) -> str:
    """Show an account number's last four characters only: mail is read by others on its way."""
    return "…" + str(number)[-4:]


def _web_link(url: Any) -> str:
    """Pass http and https links only: escaping does not stop `javascript:` in an href."""
    parts = urlsplit(str(url))
    if parts.scheme not in ("http", "https") or not parts.netloc or any(ord(c) <= 32 for c in str(url)):
        raise ValueError(f"not a web link: {str(url)[:80]!r}")
    return str(url)
