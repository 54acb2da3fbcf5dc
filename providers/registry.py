from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Protocol, runtime_checkable

from providers.base import ImageProvider, ModelInfo, format_size
from providers.errors import UnknownModel, UnknownProvider
from providers.json import Json

DEMO = "demo"
"""Name of the local provider that draws for free."""


@runtime_checkable
class RetiresModels(Protocol):
    """A maker that once offered other models: `retired` maps their names to what took their place."""

    retired: Mapping[str, str]


class Registry:
    """
    The image makers that are configured, and which of them is asked by default.

    Args:
        providers: In order of preference.
        default_provider: None: the first that is not the demo, else the demo.
        default_model: None: the first model of the default provider.

    Raises:
        UnknownProvider: The default, or any provider at all, is not configured.
        UnknownModel: The default provider does not offer the default model.
    """

    def __init__(
        self, providers: Sequence[ImageProvider], default_provider: str | None = None, default_model: str | None = None
    ) -> None:
        self.providers: tuple[ImageProvider, ...] = tuple(providers)
        self._by_name = {provider.name: provider for provider in self.providers}
        if len(self._by_name) != len(self.providers):
            raise ValueError("two providers have the same name")
        self._default_provider = self._pick(default_provider, default_model)
        self._default_model = (
            self._default_provider.models[0]
            if default_model is None
            else self._model(self._default_provider, default_model)
        )

    @property
    def default(self) -> tuple[ImageProvider, ModelInfo]:
        """The provider and model asked when a request names none."""
        return self._default_provider, self._default_model

    def get(self, name: str) -> ImageProvider:
        """
        The provider of that name.

        Raises:
            UnknownProvider: Lists what is configured.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownProvider(name, tuple(self._by_name)) from None

    def resolve(self, provider: str | None, model: str | None) -> tuple[ImageProvider, ModelInfo]:
        """
        Settle who makes a picture; what is left out is filled in from the defaults.

        A model named alone finds the provider that offers it, the default one first.

        Raises:
            UnknownProvider: Not configured.
            UnknownModel: Not offered; a retired one names its successor.
        """
        if not provider:
            return self._find(model) if model else self.default
        chosen = self.get(provider)
        if model:
            return chosen, self._model(chosen, model)
        return chosen, self._default_model if chosen is self._default_provider else chosen.models[0]

    def describe(self) -> list[Json]:
        """Everything a client needs to offer a choice, for `GET /api/providers`."""
        return [
            {
                "name": provider.name,
                "label": provider.label,
                "demo": provider.name == DEMO,
                "models": [_describe(model) for model in provider.models],
            }
            for provider in self.providers
        ]

    async def aclose(self) -> None:
        """Close every provider, also when one of them fails to."""
        async with AsyncExitStack() as stack:
            for provider in self.providers:
                stack.push_async_callback(provider.aclose)

    def _pick(self, name: str | None, model: str | None) -> ImageProvider:
        if name:
            return self.get(name)
        if not self.providers:
            raise UnknownProvider(DEMO, ())
        paid_first = sorted(self.providers, key=lambda provider: provider.name == DEMO)
        if model is None:
            return paid_first[0]
        offering = (provider for provider in paid_first if any(known.id == model for known in provider.models))
        return next(offering, paid_first[0])

    def _find(self, model: str) -> tuple[ImageProvider, ModelInfo]:
        for provider in (self._default_provider, *self.providers):
            for known in provider.models:
                if known.id == model:
                    return provider, known
        for provider in self.providers:
            if isinstance(provider, RetiresModels) and model in provider.retired:
                return provider, self._model(provider, model)
        raise UnknownModel(None, model, tuple(known.id for provider in self.providers for known in provider.models))

    @staticmethod
    def _model(provider: ImageProvider, model: str) -> ModelInfo:
        for known in provider.models:
            if known.id == model:
                return known
        successor = provider.retired.get(model) if isinstance(provider, RetiresModels) else None
        raise UnknownModel(provider.label, model, tuple(known.id for known in provider.models), successor)


def _describe(model: ModelInfo) -> Json:
    estimate = model.estimate_usd_micros
    return {
        "id": model.id,
        "label": model.label,
        "sizes": [format_size(size) for size in model.sizes],
        "defaultSize": format_size(model.default_size),
        "supports": sorted(model.supports),
        "maxN": model.max_n,
        "estimateUsd": None if estimate is None else estimate / 1_000_000,
        "pricedOn": None if model.priced_on is None else model.priced_on.isoformat(),
    }
