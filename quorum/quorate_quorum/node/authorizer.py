"""Authorisation: each call declares the permission that it requires, and one authorizer decides.

The model and the names are Kafka's: an operation (AclOperation) on a resource (ResourceType and
name). Each service has a table `required` with a value `Required` for each of its methods. The code
of each call checks this value for its `Caller` before the call has an effect. For a call that a
broker passes on, the controller checks the original principal, the one that called the broker.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, Protocol

import structlog

from quorate.errors import (
    AuthorizationError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
from quorate.net.principal import Principal

log = structlog.get_logger(__name__)


class Operation(Enum):
    """The operations that a call may require: those of Kafka's AclOperation that are used here."""

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
    """The types of resources on which a call may require an operation."""

    TOPIC = "TOPIC"
    GROUP = "GROUP"
    CLUSTER = "CLUSTER"


class Resource(NamedTuple):
    """One topic, one consumer group, or the cluster.

    It is a tuple to be cheap: each produced batch makes one.
    """

    type: ResourceType
    name: str


#: The only resource of type CLUSTER. Its name is Kafka's, so that Kafka's rules can be copied.
CLUSTER: Final = Resource(ResourceType.CLUSTER, "kafka-cluster")


@dataclass(frozen=True, slots=True)
class Required:
    """The permission that a call requires: an operation on each resource that the call names.

    If the type is TOPIC and the call names no topic, the operation is required on the cluster. An
    example is AlterConfigs of the cluster's defaults.
    """

    operation: Operation
    resource_type: ResourceType


#: The value of a call that requires no permission.
ANYONE: Final[Literal["anyone"]] = "anyone"
#: The value, in a broker's table, of a call that the broker passes on. The controller's table has
#: the permission, and the controller checks the original principal.
BY_CONTROLLER: Final[Literal["judged by the controller"]] = "judged by the controller"
#: The permission for calls between the nodes of a cluster.
CLUSTER_ACTION: Final = Required(Operation.CLUSTER_ACTION, ResourceType.CLUSTER)
ALTER_CLUSTER: Final = Required(Operation.ALTER, ResourceType.CLUSTER)
DESCRIBE_CLUSTER: Final = Required(Operation.DESCRIBE, ResourceType.CLUSTER)
#: The permission to describe a topic's name and partitions. To describe a topic's configs requires
#: DESCRIBE_CONFIGS.
DESCRIBE_TOPIC: Final = Required(Operation.DESCRIBE, ResourceType.TOPIC)


class Authorizer(Protocol):
    """Decides whether a principal may do an operation. A node gets it from its Environment."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        """Return whether the principal may do this operation on this resource.

        The method must not block: it is called for each topic of a request, in the event loop. An
        error that it raises is logged, and the call is refused.

        The withdrawal of a right takes effect on open streams, too. Produce is checked at each
        batch, Fetch at each read of a partition, and every other stream at each request message.
        Watch and Heartbeat are also checked at each answer. Work that has begun goes on: a batch is
        appended, a change is committed. A replication stream sends its present partitions until the
        follower's next request. A follower that sends none counts as gone after
        replica.lag.time.max.ms.
        """


class AllowAll:
    """The default authorizer: every principal may do everything."""

    def authorize(self, principal: Principal, operation: Operation, resource: Resource) -> bool:
        return True


ALLOW_ALL: Final = AllowAll()


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal that calls this node, and the authorizer that decides."""

    principal: Principal
    authorizer: Authorizer

    def check(self, required: Required, name: str | None = None) -> None:
        """Raise the error of `refusal` if the caller may not do this."""
        if not self.may(required, name):
            raise self._refused(required, name)

    def refusal(self, required: Required, name: str | None = None) -> AuthorizationError | None:
        """Return the error if the caller may not do this; None if the caller may.

        The error is TopicAuthorizationFailedError with the name of a topic,
        GroupAuthorizationFailedError with that of a group, and ClusterAuthorizationFailedError
        without a name.
        """
        return None if self.may(required, name) else self._refused(required, name)

    def may(self, required: Required, name: str | None = None) -> bool:
        """Return whether the caller may do this: on the topic or group; without one, the cluster.

        `name` names a resource of the type that `required` has.
        """
        resource = CLUSTER if name is None else Resource(required.resource_type, name)
        try:
            answer = self.authorizer.authorize(self.principal, required.operation, resource)
            # Not just truthy: an `async def` would return a coroutine, which counts as true.
            return answer is True
        except Exception as error:
            # The line names no principal and no topic: `repeats` would see a new line for each of
            # them.
            log.exception(
                "authorizer_failed",
                operation=required.operation.value,
                failure=type(error).__name__,
                repeats=True,
            )
            return False

    def refusal_by_id(
        self, required: Required, topic: str, topic_id: bytes
    ) -> AuthorizationError | None:
        """Return what `refusal` returns, for a caller that named the topic by its id.

        The error has the topic's name only if the caller may describe the topic.
        """
        if self.may(required, topic):
            return None
        if self.may(DESCRIBE_TOPIC, topic):
            return self._refused(required, topic)
        return TopicAuthorizationFailedError(
            f"{self._needs(required)} the topic of id {topic_id.hex()}"
        )

    def _refused(self, required: Required, name: str | None) -> AuthorizationError:
        needs = self._needs(required)
        if name is None:
            return ClusterAuthorizationFailedError(f"{needs} the cluster")
        if required.resource_type is ResourceType.GROUP:
            return GroupAuthorizationFailedError(f"{needs} group {name[:249]!r}")
        return TopicAuthorizationFailedError(f"{needs} topic {name[:249]!r}")

    def _needs(self, required: Required) -> str:
        return f"{self.principal} may not do this: it needs {required.operation.value} on"
