from quorate_broker.replicas.replicas import Key, Replicas

__all__ = ["Key", "Replicas"]
