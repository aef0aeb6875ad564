"""Avro: schemas, their rules of evolution, and the serializer. Names are in quorate.serializers."""
