"""Options that several commands share."""

from typing import Annotated

import typer

GeneratorModel = Annotated[
    str | None,
    typer.Option("--generator", metavar="DIR|HUB_ID", help="Causal LM that samples.  [default: models/generator]"),
]
VerifierModel = Annotated[
    str | None,
    typer.Option("--verifier", metavar="DIR", help="Reward model that scores.  [default: models/verifier]"),
]
Url = Annotated[
    str | None,
    typer.Option(envvar="E2H_URL", help="Ask a running server instead of loading the models here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the response as JSON and nothing else.")]
