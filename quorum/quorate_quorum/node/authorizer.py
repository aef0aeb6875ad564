"""Authorisation: each call declares what it requires, and one authorizer decides.

The model and the names are Kafka's: an operation (AclOperation) on a resource (ResourceType and
name). A service has a table `required` of its methods, made of values `Required`; the code of a
call has the table's value checked for its `Caller` before the call has an effect. A call that a
broker passes on is judged by the controller, for the principal that asked the broker.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, Protocol

from quorate.errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
from quorate.net.principal import Principal


class Operation(Enum):
    """What a principal wants to do (Kafka's AclOperation, as far as a call here requires it)."""

    READ = "READ"
    WRITE = "WRITE"
    CREATE = "CREATE"
    DELETE = "DELETE"
    ALTER = "ALTER"
    DESCRIBE = "DESCRIBE"
    CLUSTER_ACTION = "CLUSTER_ACTION"
    DESCRIBE_CONFIGS = "DESCRIBE_CONFIGS"
    ALTER_CONFIGS = "ALTER_CONFIGS"
    IDEMPOTENT_WRITE = "IDEMPOTENT_WRITE"


class ResourceType(Enum):
    """With what a principal wants to do it."""

    TOPIC = "TOPIC"
    CLUSTER = "CLUSTER"


class Resource(NamedTuple):
    """One topic, or the cluster. A tuple, for one is made for each batch that is produced."""

    type: ResourceType
    name: str


#: The one resource of its type; Kafka's name for it, so that rules can be carried over.
CLUSTER: Final = Resource(ResourceType.CLUSTER, "kafka-cluster")


@dataclass(frozen=True, slots=True)
class Required:
    """What a call requires: this operation on each resource of this type that it names.

    A call that names no topic where a topic is required means the cluster: AlterConfigs of the
    cluster's defaults, for example.
    """

    operation: Operation
    resource_type: ResourceType


#: Declared by a call that everyone may make.
ANYONE: Final[Literal["anyone"]] = "anyone"
#: Declared by a broker for a call that it passes on: the controller's own table says what it
#: requires, and the controller judges the principal that asked the broker.
BY_CONTROLLER: Final[Literal["judged by the controller"]] = "judged by the controller"
#: Calls between the nodes of a cluster.
CLUSTER_ACTION: Final = Required(Operation.CLUSTER_ACTION, ResourceType.CLUSTER)
ALTER_CLUSTER: Final = Required(Operation.ALTER, ResourceType.CLUSTER)
DESCRIBE_CLUSTER: Final = Required(Operation.DESCRIBE, ResourceType.CLUSTER)


class Authorizer(Protocol):
    """Decides. A node is given one with its Environment."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        """Whether the principal may do this.

        Must not wait: it is asked for each topic of a request, in the turn of the loop in which
        the request is carried out.
        """


class AllowAll:
    """The default: everyone may do everything."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        return True


ALLOW_ALL: Final = AllowAll()


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and the authorizer that decides what it may do here."""

    principal: Principal
    authorizer: Authorizer

    def check(self, required: Required, topic: str | None = None) -> None:
        """Raise TopicAuthorizationFailedError or ClusterAuthorizationFailedError if it may not."""
        if not self.may(required, topic):
            raise self._refused(required, topic)

    def refusal(self, required: Required, topic: str | None = None) -> AuthorizationError | None:
        """Return why the caller may not do this, None if it may."""
        return None if self.may(required, topic) else self._refused(required, topic)

    def may(self, required: Required, topic: str | None = None) -> bool:
        """Whether the caller may do this with that topic or, without one, with the cluster."""
        resource = CLUSTER if topic is None else Resource(ResourceType.TOPIC, topic)
        return self.authorizer.authorize(self.principal, required.operation, resource)

    def _refused(self, required: Required, topic: str | None) -> AuthorizationError:
        needs = f"{self.principal} may not do this: it needs {required.operation.value} on"
        if topic is None:
            return ClusterAuthorizationFailedError(f"{needs} the cluster")
        return TopicAuthorizationFailedError(f"{needs} topic {topic[:249]!r}")
