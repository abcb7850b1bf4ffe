"""Settings of a command: the environment's, overridden by the options that were given."""

from services.generator.settings import GeneratorSettings
from services.runtime.settings import load_settings
from services.verifier.settings import VerifierSettings


def generator_settings(model: str | None) -> GeneratorSettings:
    """`--generator` over `E2H_GENERATOR_*`."""
    return load_settings(GeneratorSettings, **({} if model is None else {"model": model}))


def verifier_settings(model: str | None) -> VerifierSettings:
    """`--verifier` over `E2H_VERIFIER_*`."""
    return load_settings(VerifierSettings, **({} if model is None else {"model": model}))
