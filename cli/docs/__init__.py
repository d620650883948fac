"""Documents that are generated from the code: `qlib-crypto docs fields|env-example|columns|api`."""

import typer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Print a document that is generated from the code.",
)


@app.command()
def fields() -> None:
    """Print docs/fields.md: what every field of the dataset means."""
    from cli.docs.fields import page  # noqa: PLC0415 - needs the converter's code

    typer.echo(page(), nl=False)


@app.command("env-example")
def env_example() -> None:
    """Print .env.example: every setting with its default."""
    from cli.docs.env_example import example  # noqa: PLC0415 - needs the settings of every service

    typer.echo(example(), nl=False)


@app.command("columns")
def raw_columns() -> None:
    """Print the columns of every raw dataset, as the documentation site has them."""
    from cli.docs.columns import columns  # noqa: PLC0415 - needs pyarrow

    typer.echo(columns(), nl=False)


@app.command()
def api() -> None:
    """Print what the HTTP api answers, as the documentation site has it."""
    from cli.docs.api import questions  # noqa: PLC0415 - needs the api's code

    typer.echo(questions(), nl=False)
