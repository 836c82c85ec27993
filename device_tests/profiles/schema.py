"""JSON schema of profile files, for editors: https://json-schema.org/draft/2020-12/schema."""

from __future__ import annotations

import copy
from typing import Any

from edgekit.core.profile import DeviceProfile

__all__ = ["file_schema"]

_NEEDED = ("name", "title", "runtimes")
_REMOVABLE = ("hardware", "runtimes", "systems", "budgets", "tolerances")
"""Tables in which ``false`` takes an inherited key away."""


def file_schema() -> dict[str, Any]:
    """Schema of a file of one device, or of ``[[devices]]``; where a device extends another, what it inherits is optional."""
    device = DeviceProfile.model_json_schema(mode="validation")
    definitions = device.pop("$defs", {})
    device["properties"]["extends"] = {
        "type": "string",
        "description": "Name or relative path of a profile; only what differs is said here. 'false' takes an inherited key away.",
    }
    device["required"] = ["name"]
    device["anyOf"] = [{"required": ["extends"]}, {"required": list(_NEEDED)}]
    for table in _REMOVABLE:
        device["properties"][table] = _removable(device["properties"][table], definitions)
    lab = {
        "type": "object",
        "title": "Lab",
        "description": "Several devices in one file.",
        "properties": {
            "schema_version": {"const": 1},
            "devices": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/DeviceProfile"}},
        },
        "required": ["devices"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgekit device profile",
        "anyOf": [{"$ref": "#/$defs/DeviceProfile"}, {"$ref": "#/$defs/Lab"}],
        "$defs": {**definitions, "DeviceProfile": device, "Lab": lab},
    }


def _removable(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The table's schema with ``false`` allowed as every key's value."""
    found = copy.deepcopy(definitions[field["$ref"].rpartition("/")[2]] if "$ref" in field else field)
    for name, value in found.get("properties", {}).items():
        found["properties"][name] = {"anyOf": [value, {"const": False}]}
    if isinstance(inner := found.get("additionalProperties"), dict):
        found["additionalProperties"] = {"anyOf": [inner, {"const": False}]}
    return found
