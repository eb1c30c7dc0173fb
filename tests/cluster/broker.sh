#!/bin/sh
# One broker of Apache Kafka that is its own controller: formats its folder once, then runs.
set -eu
settings=/etc/broker/server.properties
[ -e /data/log/meta.properties ] ||
  /opt/java/bin/java -Xmx128m -cp '/opt/kafka/*' kafka.tools.StorageTool format --standalone -t "$CLUSTER_ID" -c "$settings"
exec /opt/java/bin/java -Xms512m -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '/opt/kafka/*' kafka.Kafka "$settings"
