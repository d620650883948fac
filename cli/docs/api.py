"""`python -m cli.docs.api`: prints what the HTTP api answers, from its own OpenAPI document, as Markdown."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from services.api.routes import router

type Document = dict[str, Any]


def document() -> Document:
    """Return the OpenAPI document of the api. It needs no running system."""
    app = FastAPI(title="qlib-crypto")
    app.include_router(router)
    return app.openapi()


def questions() -> str:
    """Return a section for every question: what it takes, what it answers, and with which codes."""
    described = document()
    schemas = described["components"]["schemas"]
    sections = ["\n".join(_section(path, methods["get"], schemas)) for path, methods in described["paths"].items()]
    return "\n".join(sections)


def _section(path: str, question: Document, schemas: Document) -> Iterator[str]:
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
    if fields := schemas.get(_name_of(question["responses"]["200"]), {}).get("properties"):
        yield "| field | type | meaning |\n|---|---|---|"
        yield from (
            f"| `{name}` | {_type(one)} | {_cell(one.get('description', ''))} |" for name, one in fields.items()
        )
        yield ""


def _parameter(one: Document) -> str:
    schema = one["schema"]
    default = f"`{schema['default']}`" if schema.get("default") is not None else ""
    return f"| `{one['name']}` | {_type(schema)} | {default} | {_cell(one.get('description', ''))} |"


def _of_type(answer: Document) -> str:
    name = _name_of(answer)
    return f": `{name}`" if name else ""


def _name_of(answer: Document) -> str:
    """Return the name of the JSON object of an answer; empty, where it is a page or a text."""
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _type(schema: Document) -> str:
    """Return a type in words: `array of Day`, `string or null`."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
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


if __name__ == "__main__":
    print(questions(), end="")  # noqa: T201 - what the command is for
