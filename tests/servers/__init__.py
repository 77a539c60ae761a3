"""Real servers for the test suite, started without Docker: ClickHouse over HTTP and an Apache Kafka broker."""
