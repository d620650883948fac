"""Documents that are generated from the code: `qlib-crypto docs fields|env-example`."""

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
