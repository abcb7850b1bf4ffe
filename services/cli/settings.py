"""Settings of a command: the environment's, overridden by the options that were given."""

from services.generator.settings import GeneratorSettings
from services.verifier.settings import VerifierSettings


def generator_settings(model: str | None) -> GeneratorSettings:
    """`--generator` over `E2H_GENERATOR_*`."""
    return GeneratorSettings() if model is None else GeneratorSettings(model=model)


def verifier_settings(model: str | None) -> VerifierSettings:
    """`--verifier` over `E2H_VERIFIER_*`."""
    return VerifierSettings() if model is None else VerifierSettings(model=model)
