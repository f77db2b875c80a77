"""The root of what goes over the wire."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """A value as clients see it; its docstrings are the documentation."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)
