"""Apache Kafka's own tools read what Quorate writes. They need a copy of Kafka, and Java."""
