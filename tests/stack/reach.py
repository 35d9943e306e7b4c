"""Who may talk to whom by the network policies of an overlay, as a network plugin would decide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.stack.manifests import Overlay, Pod, selects

Rule = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Network:
    """The policies of one namespace. Ports are TCP."""

    overlay: Overlay

    def may_connect(self, source: Pod, target: Pod, port: int) -> bool:
        """Tell whether a connection between two pods of the namespace is let out and let in."""
        leaves = any(
            _names_pod(rule.get("to"), target) and _has_port(rule, port, target)
            for rule in self._rules("Egress", source)
        )
        enters = any(
            _names_pod(rule.get("from"), source) and _has_port(rule, port, target)
            for rule in self._rules("Ingress", target)
        )
        return leaves and enters

    def may_enter(self, namespace: Mapping[str, str], target: Pod, port: int) -> bool:
        """Tell whether pods of another namespace with these labels reach a pod here."""
        return any(
            "namespaceSelector" in peer
            and selects(peer["namespaceSelector"], namespace)
            and _has_port(rule, port, target)
            for rule in self._rules("Ingress", target)
            for peer in rule.get("from") or ({"namespaceSelector": {}},)
        )

    def outside(self, source: Pod) -> set[tuple[str, int]]:
        """Return the address blocks that a pod may reach, with the ports; an open rule is 0.0.0.0/0 at port 0."""
        found = set()
        for rule in self._rules("Egress", source):
            if not rule.get("to"):
                found.add(("0.0.0.0/0", 0))
            for peer in rule.get("to", ()):
                if "ipBlock" in peer:
                    found |= {(peer["ipBlock"]["cidr"], one["port"]) for one in rule.get("ports", ({"port": 0},))}
        return found

    def _rules(self, direction: str, pod: Pod) -> Iterator[Rule]:
        """Yield what a pod is allowed; nothing restricts a pod that no policy takes, which is one rule for all."""
        policies = [one["spec"] for one in self.overlay.of("NetworkPolicy").values()]
        taking = [
            one for one in policies if direction in one["policyTypes"] and selects(one["podSelector"], pod.labels)
        ]
        if not taking:
            yield {}
        for policy in taking:
            yield from policy.get(direction.lower(), ())


def _names_pod(peers: list[Mapping[str, Any]] | None, pod: Pod) -> bool:
    if not peers:
        return True
    return any(
        "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], pod.labels)
        for peer in peers
    )


def _has_port(rule: Rule, port: int, target: Pod) -> bool:
    ports = [one for one in rule.get("ports", ()) if one["protocol"] == "TCP"]
    return "ports" not in rule or any(target.ports.get(one["port"], one["port"]) == port for one in ports)
