"""How scenarios and the kubelet reach the API server: over HTTP with the official client, or, for hundreds of schedules, by
calling the model directly. Both say the same."""

from typing import Any, Protocol

from tests.cluster.server.api import Api, ApiError
from tests.cluster.server.kinds import BY_NAME
from tests.cluster.server.storage import Json

AGENT = "scenario"


class Door(Protocol):
    """The verbs; what is not there is None, every other refusal an ApiError."""

    def all(self, resource: str, namespace: str = "", labels: str = "") -> list[Json]: ...

    def find(self, resource: str, namespace: str, name: str) -> Json | None: ...

    def create(self, resource: str, namespace: str, document: Json) -> Json: ...

    def patch(self, resource: str, namespace: str, name: str, patch: Json, *, status: bool = False) -> Json | None: ...

    def delete(self, resource: str, namespace: str, name: str, **options: Any) -> None: ...

    def evict(self, namespace: str, name: str) -> None: ...


class DirectDoor:
    """Into the model, in this process."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def all(self, resource: str, namespace: str = "", labels: str = "") -> list[Json]:
        if not labels:
            return [one.object for one in self.api.storage.of(resource, namespace)]
        return [one.object for one in self.api.select(resource, namespace, labels=labels)[0]]

    def find(self, resource: str, namespace: str, name: str) -> Json | None:
        return self.api.find(resource, namespace, name)

    def create(self, resource: str, namespace: str, document: Json) -> Json:
        return self.api.create(resource, namespace, document)

    def patch(self, resource: str, namespace: str, name: str, patch: Json, *, status: bool = False) -> Json | None:
        try:
            return self.api.patch(resource, namespace, name, patch, status=status)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def delete(self, resource: str, namespace: str, name: str, **options: Any) -> None:
        try:
            self.api.delete(resource, namespace, name, options)
        except ApiError as error:
            if error.code != 404:
                raise

    def evict(self, namespace: str, name: str) -> None:
        self.api.evict(namespace, name)


class HttpDoor:
    """Over HTTP. `client`: a `kubernetes.client.ApiClient`."""

    def __init__(self, client: Any) -> None:
        client.user_agent = AGENT
        self._client = client

    @classmethod
    def at(cls, url: str) -> "HttpDoor":
        from kubernetes import client

        settings = client.Configuration(host=url)
        settings.retries = False
        return cls(client.ApiClient(settings))

    def _call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        import json

        import urllib3
        from kubernetes.client.exceptions import ApiException

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            response = self._client.call_api(
                path, method, query_params=[(name, value) for name, value in query.items() if value], body=body,
                header_params={"Content-Type": kind, "Accept": "application/json"}, auth_settings=["BearerToken"],
                _preload_content=False, _return_http_data_only=True, _request_timeout=10,
            )  # fmt: skip
            return json.loads(response.data)
        except ApiException as error:
            text = error.body.decode() if isinstance(error.body, bytes) else str(error.body or "")
            said = json.loads(text) if text.lstrip().startswith("{") else {}
            raise ApiError(error.status, said.get("reason", ""), said.get("message", text)) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(503, "ServiceUnavailable", f"the API server does not answer: {error}") from None

    def all(self, resource: str, namespace: str = "", labels: str = "") -> list[Json]:
        row = BY_NAME[resource]
        answer = self._call("GET", row.path(namespace), labelSelector=labels)
        return [{"apiVersion": row.api_version, "kind": row.kind, **item} for item in answer["items"]]

    def find(self, resource: str, namespace: str, name: str) -> Json | None:
        try:
            return self._call("GET", BY_NAME[resource].path(namespace, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def create(self, resource: str, namespace: str, document: Json) -> Json:
        row = BY_NAME[resource]
        return self._call("POST", row.path(namespace), {"apiVersion": row.api_version, "kind": row.kind, **document})

    def patch(self, resource: str, namespace: str, name: str, patch: Json, *, status: bool = False) -> Json | None:
        row = BY_NAME[resource]
        try:
            return self._call("PATCH", row.path(namespace, name) + ("/status" if status and row.status else ""), patch)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def delete(self, resource: str, namespace: str, name: str, **options: Any) -> None:
        try:
            self._call("DELETE", BY_NAME[resource].path(namespace, name), options or None)
        except ApiError as error:
            if error.code != 404:
                raise

    def evict(self, namespace: str, name: str) -> None:
        metadata = {"name": name, "namespace": namespace}
        self._call(
            "POST", BY_NAME["pods"].path(namespace, name) + "/eviction",
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata},
        )  # fmt: skip
