"""Publish the book: ``python -m fusionkd_book``, whose commands its ``--help`` lists."""

from tempfile import TemporaryDirectory

import click

from fusionkd_book import listen as listening
from fusionkd_book import publish, web
from fusionkd_book import street as streets
from fusionkd_book import tuning as ranking
from fusionkd_book import weights as shipped
from fusionkd_lib.cli import Commands
from fusionkd_lib.runs import outputs_root, project_root


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make the book's chapters into notebooks and pages."""


@main.command("notebooks")
def write_notebooks() -> None:
    """Write every chapter as .ipynb into outputs/notebooks."""
    for path in publish.write_notebooks(outputs_root() / "notebooks"):
        click.echo(path)


@main.command()
@click.argument("names", nargs=-1)
def executed(names: tuple[str, ...]) -> None:
    """Execute every chapter, or those NAMED, and keep the copies that are committed."""
    for name in names or publish.chapters():
        # In an outputs folder of its own: a copy shows no run that a reader's clone lacks.
        with TemporaryDirectory() as outputs:
            folder = project_root() / "outputs" / "executed"
            click.echo(publish.execute_copy(name, folder, outputs=outputs))


@main.command()
def tables() -> None:
    """Execute chapter 05 over the finished runs and render it as a page."""
    # A page of one's own may be as large as one's runs are many.
    copy = publish.execute_copy("05_the_tables", outputs_root() / "book", most=float("inf"))
    click.echo(publish.render(copy))


@main.command()
def reference() -> None:
    """Keep the compact records of the finished runs, and show their first table in the README."""
    folder = project_root() / "outputs" / "reference"
    for path in publish.keep_reference(outputs_root() / "runs", folder):
        click.echo(path)
    publish.write_readme(project_root() / "README.md", folder)


@main.command()
def street() -> None:
    """Download ten free recordings from the street, with credits, into outputs/street."""
    for path in streets.fetch(outputs_root() / "street"):
        click.echo(path)


@main.command()
def site() -> None:
    """Gather what the web book is built from; `make site` builds it."""
    click.echo(web.gather(outputs_root() / "site-source"))


@main.command()
def weights() -> None:
    """Train the weights that come with the book, and write book/weights and their records."""
    for path in shipped.make():
        click.echo(path)


@main.command()
def listen() -> None:
    """Write the page that listens into the web book: one file, usable alone."""
    click.echo(listening.write(outputs_root() / "site" / "listen.html"))


@main.command()
def tuning() -> None:
    """Rank the candidates for recipe and distillation, on the pages of their protocols."""
    ranking.write_rankings()


if __name__ == "__main__":
    main(prog_name="python -m fusionkd_book")
