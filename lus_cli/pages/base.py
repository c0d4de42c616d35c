"""The base of the HTML pages: templates, number formats, and one file that needs nothing else.

A page escapes everything except the SVG figures, which Matplotlib has already escaped. Its content
security policy forbids loading anything and running any script except its own, so an id in the data
can do no harm.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lus_cli.pages.overlay import CONTOUR, STRONGEST, colour_names
from lus_cli.words import counted, has_interval, p_value

ASSUMED_RATE = 25.0  # frames/s, where the source does not state its rate


def rendered(
    template: str,
    styles: str,
    scripts: str,
    constants: Mapping[str, Any] | None = None,
    **values: Any,
) -> str:
    """Renders a page with its style sheets and scripts inside it.

    styles, scripts: file names in this folder, separated by spaces.
    constants: values that the macros of imported templates need, too, such as `few_patients`.
    values: what the template itself shows.
    """
    script = "".join(map(template_text, scripts.split()))
    pages = environment()
    pages.globals |= constants or {}
    return pages.get_template(template).render(
        style=Markup("".join(map(template_text, styles.split()))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def environment() -> jinja2.Environment:
    """The Jinja environment of all templates, with the filters and constants that they share."""
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "three": three,
        "interval": page_interval,
        "reason": reason,
        "percent": percent,
        "counted": counted,
        "p_value": p_value,
        "thousands": "{:,}".format,
    }
    pages.globals |= {
        "overlay": {"colours": colour_names(), "strongest": STRONGEST, "contour": CONTOUR},
        "assumed_rate": ASSUMED_RATE,
    }
    return pages


def template_text(name: str) -> str:
    """The text of a file in this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------ numbers


def three(value: float | None) -> str:
    """A number with three decimals and a true minus sign; a dash for an undefined one."""
    return "–" if value is None else f"{value:z.3f}".replace("-", "\u2212")


def percent(share: float) -> str:
    """A share as a percentage without decimals."""
    return f"{100 * share:.0f}\u00a0%"


def page_interval(estimate: Mapping[str, Any]) -> str:
    """The interval of an estimate with `low` and `high`; a dash where it has none to show."""
    if not has_interval(estimate):
        return "–"
    return f"{three(estimate['low'])} to {three(estimate['high'])}"


def reason(estimate: Mapping[str, Any]) -> str:
    """Why an estimate has no value or no interval to show; empty if it has both."""
    words: str = estimate.get("why") or estimate.get("note") or ""
    return words


# ------------------------------------------------------------------------------------------- tables


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows of a dotted name and a text."""
    if isinstance(value, Mapping):
        return [row for k, v in value.items() for row in flat(v, f"{name}.{k}" if name else str(k))]
    if value is None:
        return [(name, "–")] if name else []
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return [(name, str(value))]
