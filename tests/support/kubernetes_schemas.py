"""Schemas of what manifests hold: Kubernetes' own, bundled with a package; those of KEDA and cert-manager from their Go modules.

Those of Strimzi must be generated with a Java that not every machine has (`strimzi`), which `make k8s-check` does; here there are shapes
of our own for its kinds and the Prometheus Operator's (`operator_shapes`), which know the fields that we use.
"""

import functools
from typing import Any, Final

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from tests.support.go_modules import Module, module_file
from tests.support.kustomize import LOADER
from tests.support.operator_shapes import SHAPES

KUBERNETES: Final = "1.37"
_KEDA: Final = Module("github.com/kedacore/keda/v2", "v2.21.0")
_CERT_MANAGER: Final = Module("github.com/cert-manager/cert-manager", "v1.19.1")
# Where the definition of a kind is, by apiVersion and kind.
DEFINITIONS: Final = {
    ("keda.sh/v1alpha1", "ScaledObject"): (_KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): (
        _KEDA,
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    ("cert-manager.io/v1", "Certificate"): (_CERT_MANAGER, "deploy/crds/cert-manager.io_certificates.yaml"),
}

Schema = dict[str, Any]


def problems(manifest: Schema) -> list[str]:
    """What is wrong with an object; unknown fields and unknown kinds are wrong."""
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind in DEFINITIONS:
        return _violations(_defined(*kind), manifest)
    if kind in SHAPES:
        return _violations(SHAPES[kind], manifest)
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'/'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [str(error)]
    return []


def _violations(schema: Schema, manifest: Schema) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(manifest)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@functools.cache
def _defined(api_version: str, kind: str) -> Schema:
    module, path = DEFINITIONS[api_version, kind]
    definition = yaml.load(module_file(module, path).read_text(), LOADER)
    (schema,) = [
        version["schema"]["openAPIV3Schema"]
        for version in definition["spec"]["versions"]
        if f"{definition['spec']['group']}/{version['name']}" == api_version
    ]
    # The API server knows the metadata; a definition says only that there is some.
    schema["properties"]["metadata"] = SHAPES["metadata", ""]
    closed: Schema = _closed(schema)
    return closed


def _closed(schema: Any) -> Any:
    """As JSON Schema has it, and with no other fields than those that it names."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _closed(below) for name, below in value.items()}
        if key == "properties"
        else _closed(value)
        for key, value in schema.items()
    }
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["type"] = ["integer", "string"]
    if (
        "properties" in schema
        and "additionalProperties" not in schema
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        made["additionalProperties"] = False
    return made
