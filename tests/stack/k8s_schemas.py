"""What this project uses of other projects' resources. Narrower than theirs, so that a slip of the pen is an error."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SECONDS: Schema = {"type": "string", "pattern": r"^[0-9]+(s|m|h)$"}
_LABELS: Schema = {"type": "object", "minProperties": 1, "additionalProperties": _TEXT}


def _object(required: str, /, *, optional: str = "", **properties: Schema) -> Schema:
    known = {*required.split(), *optional.split()}
    assert known == properties.keys(), f"{known ^ properties.keys()}"
    return {
        "type": "object",
        "required": required.split(),
        "additionalProperties": False,
        "properties": properties,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _one(*values: str) -> Schema:
    return {"enum": list(values)}


def _resource(api_version: str, kind: str, spec: Schema) -> Schema:
    metadata = _object(
        "name namespace",
        optional="labels annotations",
        name=_TEXT,
        namespace=_TEXT,
        labels=_LABELS,
        annotations=_LABELS,
    )
    return _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=metadata,
        spec=spec,
    )


_TRIGGER = _object(
    "type metadata authenticationRef",
    type={"const": "postgresql"},
    metadata=_object(
        "query targetQueryValue",
        query={"type": "string", "pattern": "^SELECT "},
        targetQueryValue={"type": "string", "pattern": "^[0-9]+$"},
    ),
    authenticationRef=_object("name", name=_TEXT),
)
_BEHAVIOR = _object(
    "scaleUp scaleDown",
    scaleUp=_object("stabilizationWindowSeconds", stabilizationWindowSeconds=_COUNT),
    scaleDown=_object("selectPolicy", selectPolicy=_one("Disabled", "Max", "Min")),
)
_SCALED_OBJECT = _object(
    "scaleTargetRef minReplicaCount maxReplicaCount pollingInterval cooldownPeriod advanced triggers",
    scaleTargetRef=_object("name", name=_TEXT),
    minReplicaCount=_COUNT,
    maxReplicaCount={"type": "integer", "minimum": 1},
    pollingInterval=_COUNT,
    cooldownPeriod=_COUNT,
    advanced=_object(
        "horizontalPodAutoscalerConfig", horizontalPodAutoscalerConfig=_object("behavior", behavior=_BEHAVIOR)
    ),
    triggers=_list(_TRIGGER),
)
_TRIGGER_AUTHENTICATION = _object(
    "secretTargetRef",
    secretTargetRef=_list(_object("parameter name key", parameter={"const": "connection"}, name=_TEXT, key=_TEXT)),
)
_SERVICE_MONITOR = _object(
    "selector endpoints",
    optional="jobLabel",
    selector=_object("matchLabels", matchLabels=_LABELS),
    endpoints=_list(_object("port interval", port=_TEXT, interval=_SECONDS)),
    jobLabel=_TEXT,
)
_ALERT = _object(
    "alert expr labels annotations",
    optional="for",
    alert={"type": "string", "pattern": "^Trainyard[A-Za-z]+$"},
    expr=_TEXT,
    labels=_object("severity", severity=_one("critical", "warning")),
    annotations=_object("summary", summary=_TEXT),
    **{"for": _SECONDS},
)
_RECORD = _object("record expr", record={"type": "string", "pattern": "^trainyard:[a-z_]+:[a-z0-9_]+$"}, expr=_TEXT)
_RULE: Schema = {"if": {"required": ["alert"]}, "then": _ALERT, "else": _RECORD}
_PROMETHEUS_RULE = _object("groups", groups=_list(_object("name rules", name=_TEXT, rules=_list(_RULE))))
_LISTENER = _object(
    "name protocol port tls allowedRoutes",
    optional="hostname",
    name=_TEXT,
    protocol={"const": "HTTPS"},
    port=_COUNT,
    hostname=_TEXT,
    tls=_object(
        "mode certificateRefs", mode={"const": "Terminate"}, certificateRefs=_list(_object("name", name=_TEXT))
    ),
    allowedRoutes=_object("namespaces", namespaces=_object("from", **{"from": _one("Same", "Selector", "All")})),
)
_GATEWAY = _object("gatewayClassName listeners", gatewayClassName=_TEXT, listeners=_list(_LISTENER))
_GRPC_ROUTE = _object(
    "parentRefs rules",
    optional="hostnames",
    parentRefs=_list(_object("name sectionName", name=_TEXT, sectionName=_TEXT)),
    hostnames=_list(_TEXT),
    rules=_list(_object("backendRefs", backendRefs=_list(_object("name port", name=_TEXT, port=_COUNT)))),
)

SCHEMAS: dict[tuple[str, str], Schema] = {
    (api_version, kind): _resource(api_version, kind, spec)
    for api_version, kind, spec in (
        ("keda.sh/v1alpha1", "ScaledObject", _SCALED_OBJECT),
        ("keda.sh/v1alpha1", "TriggerAuthentication", _TRIGGER_AUTHENTICATION),
        ("monitoring.coreos.com/v1", "ServiceMonitor", _SERVICE_MONITOR),
        ("monitoring.coreos.com/v1", "PrometheusRule", _PROMETHEUS_RULE),
        ("gateway.networking.k8s.io/v1", "Gateway", _GATEWAY),
        ("gateway.networking.k8s.io/v1", "GRPCRoute", _GRPC_ROUTE),
    )
}
