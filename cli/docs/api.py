"""`qlib-crypto docs api`: prints what the HTTP api answers, from its own OpenAPI document, as Markdown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.api.app import create_app
from services.api.completeness.reader import LedgerReader
from services.api.health.snapshot import Sources
from shared.bus.bus import Bus
from shared.clock import ExchangeClock
from shared.runtime.service import Health

type Document = dict[str, Any]

_OF_THE_FRAMEWORK = ("HTTPValidationError", "ValidationError")
"""Types of an answer to a parameter that cannot be read; FastAPI documents them."""


def document() -> Document:
    """Return the OpenAPI document of the api. Nothing is asked of the sources, so no system has to run."""
    data_dir, qlib_dir = Path("okx_data"), Path("qlib_data")
    sources = Sources(
        bus=Bus("redis://127.0.0.1:9/0"),
        redis_name="127.0.0.1:9",
        clock=ExchangeClock(),
        health=Health(),
        data_dir=data_dir,
        qlib_dir=qlib_dir,
        ledger=LedgerReader(data_dir),
    )
    return create_app(sources).openapi()


def questions() -> str:
    """Return a section for every question, and one for every type of the answers."""
    described = document()
    schemas = {name: one for name, one in described["components"]["schemas"].items() if name not in _OF_THE_FRAMEWORK}
    sections = ["\n".join(_section(path, methods["get"])) for path, methods in described["paths"].items()]
    types = ["\n".join(_described(name, one)) for name, one in sorted(schemas.items())]
    return "\n".join([*sections, "## Types\n", *types])


def _section(path: str, question: Document) -> Iterator[str]:
    """Yield what a question takes, what it answers, and with which codes."""
    yield f"## `GET {path}`\n"
    yield f"{question.get('summary', '')}\n"
    if description := question.get("description"):
        yield f"{description}\n"
    if parameters := question.get("parameters"):
        yield "| parameter | type | default | meaning |\n|---|---|---|---|"
        yield from (_parameter(one) for one in parameters)
        yield ""
    yield "| code | answer |\n|---|---|"
    for code, answer in sorted(question["responses"].items()):
        yield f"| {code} | {_cell(answer['description'])}{_of_type(answer)} |"
    yield ""


def _described(name: str, schema: Document) -> Iterator[str]:
    """Yield a type: its meaning, and its fields or values."""
    yield f"### {name}\n"
    if description := schema.get("description"):
        yield f"{_cell(description)}\n"
    if "enum" in schema:
        yield f"One of {_type(schema)}.\n"
    if fields := schema.get("properties"):
        yield "| field | type | meaning |\n|---|---|---|"
        yield from (
            f"| `{field}` | {_type(one)} | {_cell(one.get('description', ''))} |" for field, one in fields.items()
        )
        yield ""


def _parameter(one: Document) -> str:
    schema = one["schema"]
    default = f"`{schema['default']}`" if schema.get("default") is not None else ""
    return f"| `{one['name']}` | {_type(schema)} | {default} | {_cell(one.get('description', ''))} |"


def _of_type(answer: Document) -> str:
    name = _name_of(answer)
    return f": {_link(name)}" if name else ""


def _link(name: str) -> str:
    """Return a link to the section of a type."""
    return f"`{name}`" if name in _OF_THE_FRAMEWORK else f"[{name}](#{name.lower()})"


def _name_of(answer: Document) -> str:
    """Return the name of the JSON object of an answer; empty, where it is a page or a text."""
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _type(schema: Document) -> str:
    """Return a type in words: `array of Day`, `string or null`."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


def _cell(text: str) -> str:
    """Return a text that breaks no table."""
    return " ".join(text.split()).replace("|", "\\|")
