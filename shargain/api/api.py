"""django-ninja, told to speak problem documents and to read JSON strictly."""

from typing import Any

from django.http import HttpRequest
from ninja import NinjaAPI
from ninja.errors import ValidationError, ValidationErrorContext
from ninja.openapi.schema import OpenAPISchema
from ninja.parser import Parser
from pydantic_core import from_json

from shargain.api import problems
from shargain.api.auth import ScraperBearer
from shargain.api.routes import router


class JsonParser(Parser):
    """Bounds what the standard library's parser lets through: depth, digits, NaN, surrogates."""

    def parse_body(self, request: HttpRequest) -> Any:
        return from_json(request.body, allow_inf_nan=False)


class Api(NinjaAPI):
    def validation_error_from_error_contexts(
        self, error_contexts: list[ValidationErrorContext[Any]]
    ) -> ValidationError:
        """Keep the wrong values, which django-ninja drops: an error names the value."""
        return ValidationError(
            [
                problems.place(context.model.__ninja_param_source__, error)
                for context in error_contexts
                for error in context.pydantic_validation_error.errors(include_url=False)
            ]
        )

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """Give the errors the media type that they have; django-ninja knows one for all."""
        schema = super().get_openapi_schema(**options)
        for operations in schema["paths"].values():
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    if status >= 400:
                        content = answer["content"]
                        content[problems.CONTENT_TYPE] = content.pop(self.renderer.media_type)
        return schema


api = Api(
    title="shargain",
    version="1",
    description="Scrapers post the offers that they found, as far as their targets' quotas allow.",
    urls_namespace="api",
    auth=ScraperBearer(),
    parser=JsonParser(),
)
api.add_router("", router)
problems.install(api)
